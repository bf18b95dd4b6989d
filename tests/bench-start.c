/* The floor of a start, and a stopwatch for it.
 *
 * floor ROOT
 *	makes the system calls of `jc-unshare -puiC -- jc-rootfs --sys none ROOT -- /bin/true` and nothing
 *	else: the same namespaces, mounts and nodes, an exec in the place of jc-rootfs' own
 * time ROUNDS COMMAND...
 *	runs each command, words between spaces, once a round, and prints microseconds: the least, the 10th
 *	percentile, the median, and the ratio of the second to that of the first command
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static long ok(long result, const char *what)
{
	if (result < 0) {
		perror(what);
		_exit(1);
	}
	return result;
}
#define OK(call) ok(call, #call)
#define SYS(name, ...) ok(syscall(SYS_##name, ##__VA_ARGS__), #name)

static const unsigned nothing = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC;
static const unsigned both = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;

/* A detached mount of a new file system. */
static int make(const char *kind, const char **options, unsigned attributes)
{
	int context = SYS(fsopen, kind, FSOPEN_CLOEXEC);
	SYS(fsconfig, context, FSCONFIG_SET_STRING, "source", kind, 0);
	for (; *options; options += 2)
		SYS(fsconfig, context, FSCONFIG_SET_STRING, options[0], options[1], 0);
	SYS(fsconfig, context, FSCONFIG_CMD_CREATE, NULL, NULL, 0);
	int mount = SYS(fsmount, context, FSMOUNT_CLOEXEC, attributes);
	close(context);
	return mount;
}

static void attach(int mount, int dir, const char *name)
{
	int target = OK(openat(dir, name, O_PATH | O_NOFOLLOW | O_CLOEXEC));
	SYS(move_mount, mount, "", target, "", both);
	close(target);
}

#define OPTIONS(...) ((const char *[]){ __VA_ARGS__ __VA_OPT__(, ) NULL })

static void make_dev(int root)
{
	static const struct {
		const char *name;
		int major, minor;
	} nodes[] = { { "null", 1, 3 },	  { "zero", 1, 5 },    { "full", 1, 7 },
		      { "random", 1, 8 }, { "urandom", 1, 9 }, { "tty", 5, 0 } };
	static const char *links[][2] = { { "/proc/self/fd", "fd" },
					  { "/proc/self/fd/0", "stdin" },
					  { "/proc/self/fd/1", "stdout" },
					  { "/proc/self/fd/2", "stderr" },
					  { "pts/ptmx", "ptmx" } };
	int dev = make("tmpfs", OPTIONS("mode", "0755", "size", "64k"),
		       MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC);
	attach(dev, root, "dev");
	for (int i = 0; i < 6; i++) {
		OK(mknodat(dev, nodes[i].name, S_IFCHR | 0666,
			   makedev(nodes[i].major, nodes[i].minor)));
		OK(fchmodat(dev, nodes[i].name, 0666, 0));
	}
	for (int i = 0; i < 5; i++)
		OK(symlinkat(links[i][0], dev, links[i][1]));
	OK(mkdirat(dev, "pts", 0755));
	attach(make("devpts", OPTIONS("ptmxmode", "0666", "mode", "0620", "gid", "5"),
		    MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC),
	       dev, "pts");
	OK(mkdirat(dev, "shm", 0755));
	attach(make("tmpfs", OPTIONS("mode", "1777", "size", "64m"), nothing), dev, "shm");
	OK(mkdirat(dev, "mqueue", 0755));
	attach(make("mqueue", OPTIONS(), nothing), dev, "mqueue");
}

static int inside(char *directory)
{
	int signal;
	char buffer[4096];
	struct stat own;
	SYS(close_range, 3, ~0U, CLOSE_RANGE_CLOEXEC);
	SYS(keyctl, 1, NULL);
	prctl(PR_GET_PDEATHSIG, &signal);
	int stat_file = OK(open("/proc/self/stat", O_RDONLY | O_CLOEXEC));
	OK(read(stat_file, buffer, sizeof buffer));
	OK(stat("/proc/self/exe", &own));
	OK(unshare(CLONE_NEWNS));
	OK(mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	int slash = OK(open("/", O_PATH | O_DIRECTORY | O_CLOEXEC));
	int source = OK(open(directory, O_PATH | O_DIRECTORY | O_CLOEXEC));
	int root = SYS(open_tree, source, "",
		       OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH | AT_RECURSIVE);
	struct mount_attr attributes = { .attr_set = MOUNT_ATTR_NODEV };
	SYS(mount_setattr, root, "", AT_EMPTY_PATH | AT_RECURSIVE, &attributes, sizeof attributes);
	SYS(move_mount, root, "", slash, "", both);
	attach(make("proc", OPTIONS(), nothing), root, "proc");
	make_dev(root);
	OK(fchdir(root));
	SYS(pivot_root, ".", ".");
	OK(umount2(".", MNT_DETACH));
	OK(chdir("/"));
	OK(fchdir(root));
	if (!getcwd(buffer, sizeof buffer))
		return 1;
	for (int number = 1; number <= 64; number++) {
		uint64_t action[4] = { 0 };
		syscall(SYS_rt_sigaction, number, action, NULL, 8);
	}
	execv("/bin/true", (char *[]){ "true", NULL });
	perror("exec /bin/true");
	return 1;
}

static int outside(char *self, char *directory)
{
	sigset_t all;
	int pipes[2], pidfd = -1, status;
	struct signalfd_siginfo info;
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	int signals = OK(signalfd(-1, &all, SFD_CLOEXEC));
	OK(pipe2(pipes, O_CLOEXEC));
	struct clone_args args = { .flags = CLONE_PIDFD | CLONE_NEWCGROUP | CLONE_NEWUTS |
					    CLONE_NEWIPC | CLONE_NEWPID,
				   .pidfd = (uintptr_t)&pidfd,
				   .exit_signal = SIGCHLD };
	pid_t child = SYS(clone3, &args, sizeof args);
	if (child == 0) {
		struct pollfd life = { pipes[0], POLLIN, 0 };
		close(pipes[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		poll(&life, 1, 0);
		sigemptyset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		execv(self, (char *[]){ self, "inside", directory, NULL });
		perror(self);
		_exit(1);
	}
	close(pipes[0]);
	OK(read(signals, &info, sizeof info));
	OK(waitpid(child, &status, 0));
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1;
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

static double run(char *command)
{
	extern char **environ;
	char *words[64], *copy = strdup(command);
	struct timespec begin, end;
	int status, n = 0;
	pid_t child;
	for (char *word = strtok(copy, " "); word && n < 63; word = strtok(NULL, " "))
		words[n++] = word;
	words[n] = NULL;
	clock_gettime(CLOCK_MONOTONIC, &begin);
	if (posix_spawnp(&child, words[0], NULL, NULL, words, environ) ||
	    waitpid(child, &status, 0) != child || status != 0) {
		fprintf(stderr, "%s: does not work\n", command);
		exit(1);
	}
	clock_gettime(CLOCK_MONOTONIC, &end);
	free(copy);
	return (end.tv_sec - begin.tv_sec) * 1e6 + (end.tv_nsec - begin.tv_nsec) / 1e3;
}

static int stopwatch(int rounds, char **commands, int count)
{
	double *times = calloc((size_t)rounds * count, sizeof *times), first = 0;
	for (int round = 0; round < rounds; round++)
		for (int i = 0; i < count; i++)
			times[i * rounds + round] = run(commands[i]);
	printf("  least    p10 median  ratio  command\n");
	for (int i = 0; i < count; i++) {
		double *own = times + i * rounds, p10;
		qsort(own, rounds, sizeof *own, compare);
		p10 = own[rounds / 10];
		first = i ? first : p10;
		printf("%7.0f%7.0f%7.0f%7.2f  %s\n", own[0], p10, own[rounds / 2], p10 / first,
		       commands[i]);
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && strcmp(argv[1], "floor") == 0)
		return outside(argv[0], argv[2]);
	if (argc == 3 && strcmp(argv[1], "inside") == 0)
		return inside(argv[2]);
	if (argc > 3 && strcmp(argv[1], "time") == 0 && atoi(argv[2]) > 0)
		return stopwatch(atoi(argv[2]), argv + 3, argc - 3);
	fprintf(stderr, "usage: %s floor ROOT | time ROUNDS COMMAND...\n", argv[0]);
	return 2;
}
