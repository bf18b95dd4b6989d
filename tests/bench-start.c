/* The floor of a start, and a stopwatch for it.
 *
 * floor ROOT
 *	makes the system calls of `jc-unshare -puiC -- jc-rootfs --sys none ROOT -- /bin/true` and nothing
 *	else: the same namespaces, mounts and nodes, an exec in the place of jc-rootfs' own
 * container ROOT
 *	makes those of `jc-run -m 256M --pids-limit 100 --rootfs ROOT --network none -- true` besides that
 *	matter: a network namespace (which the parent creates while the child starts), a cgroup with limits in each hierarchy that it takes, a state dir,
 *	bound files, masked paths, groups mounted, capabilities and a filter of the same size; in two
 *	processes with one exec, in the place of three with three and jc-run
 * time ROUNDS COMMAND...
 *	runs each command, words between spaces, once a round, and prints microseconds: the least, the 10th
 *	percentile, the median, and the ratio of the second to that of the first command
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/mount.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
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

/* A detached mount of a new file system. An option without a value is a flag. */
static int make(const char *kind, const char **options, unsigned attributes)
{
	int context = SYS(fsopen, kind, FSOPEN_CLOEXEC);
	SYS(fsconfig, context, FSCONFIG_SET_STRING, "source", kind, 0);
	for (; *options; options += 2)
		SYS(fsconfig, context, options[1] ? FSCONFIG_SET_STRING : FSCONFIG_SET_FLAG, options[0],
		    options[1], 0);
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

/* Another place for what is at a path of the root. */
static void bind_over(int root, int source, const char *from, const char *to, int read_only)
{
	struct mount_attr attributes = { .attr_set = MOUNT_ATTR_RDONLY };
	int target = openat(root, to, O_PATH | O_NOFOLLOW | O_CLOEXEC);
	if (target < 0)
		return;
	int mount = SYS(open_tree, source, from, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
	if (read_only)
		SYS(mount_setattr, mount, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
	SYS(move_mount, mount, "", target, "", both);
	close(mount);
	close(target);
}

/* What the host has in /sys/fs/cgroup: one hierarchy, or a directory for each of version 1. */
static void mount_groups(int root)
{
	char table[4096], *line, *rest = table;
	int file = OK(open("/proc/self/cgroup", O_RDONLY | O_CLOEXEC));
	table[OK(read(file, table, sizeof table - 1))] = 0;
	close(file);
	if (access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0) {
		attach(make("cgroup2", OPTIONS(), nothing | MOUNT_ATTR_RDONLY), root, "sys/fs/cgroup");
		return;
	}
	int top = make("tmpfs", OPTIONS("mode", "0755", "size", "64k"), nothing);
	attach(top, root, "sys/fs/cgroup");
	while ((line = strsep(&rest, "\n")) && *line) {
		const char *options[16] = { 0 };
		strsep(&line, ":");
		char *names = strsep(&line, ":"), *name = strchr(names, '=');
		int is_unified = !*names;
		char directory[64];
		snprintf(directory, sizeof directory, "%s", is_unified ? "unified" : name ? name + 1 : names);
		if (is_unified && access("/sys/fs/cgroup/unified", F_OK))
			continue;
		if (name) {
			options[0] = "name";
			options[1] = name + 1;
		} else if (!is_unified) {
			for (int i = 0; i < 14 && (options[i] = strsep(&names, ",")); i += 2)
				;
		}
		int group = make(is_unified ? "cgroup2" : "cgroup", options, nothing | MOUNT_ATTR_RDONLY);
		OK(mkdirat(top, directory, 0755));
		attach(group, top, directory);
	}
	struct mount_attr attributes = { .attr_set = MOUNT_ATTR_RDONLY };
	SYS(mount_setattr, top, "", AT_EMPTY_PATH, &attributes, sizeof attributes);
}

static char state[64];

/* The socket by which the parent sends a network namespace. */
enum { NETWORK = 9 };

/* Sends or receives one descriptor. */
static int pass(int socket, int descriptor)
{
	char byte = 0;
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	struct iovec data = { &byte, 1 };
	struct msghdr message = { .msg_iov = &data,
				  .msg_iovlen = 1,
				  .msg_control = control.space,
				  .msg_controllen = sizeof control.space };
	struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
	if (descriptor < 0) {
		OK(recvmsg(socket, &message, MSG_CMSG_CLOEXEC));
		memcpy(&descriptor, CMSG_DATA(rights), sizeof descriptor);
		return descriptor;
	}
	*rights = (struct cmsghdr){ CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS };
	memcpy(CMSG_DATA(rights), &descriptor, sizeof descriptor);
	return OK(sendmsg(socket, &message, MSG_NOSIGNAL));
}

/* Creates a network namespace with loopback up, sends it, and returns to that of before. */
static void send_network(int socket_of_child)
{
	struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
	int own = OK(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	OK(unshare(CLONE_NEWNET));
	int any = OK(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0));
	OK(ioctl(any, SIOCSIFFLAGS, &lo));
	close(any);
	int new = OK(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
	pass(socket_of_child, new);
	OK(setns(own, CLONE_NEWNET));
	close(new);
	close(own);
}

/* What jc-run has jc-rootfs do besides: /sys, its files, what is hidden or not to be written. */
static void harden_root(int root)
{
	static const char *files[] = { "hostname", "hosts", "resolv.conf" };
	static const char *hidden[] = { "proc/kcore", "proc/keys", "proc/timer_list", "proc/interrupts" };
	static const char *dirs[] = { "proc/acpi", "proc/scsi", "sys/devices/virtual/powercap",
				      "sys/firmware" };
	static const char *fixed[] = { "proc/bus", "proc/fs", "proc/irq", "proc/sys",
				       "proc/sysrq-trigger" };
	char from[128], to[32];
	OK(setns(pass(NETWORK, -1), CLONE_NEWNET));
	attach(make("sysfs", OPTIONS(), nothing | MOUNT_ATTR_RDONLY), root, "sys");
	mount_groups(root);
	for (int i = 0; i < 3; i++) {
		snprintf(from, sizeof from, "%s/%s", state, files[i]);
		snprintf(to, sizeof to, "etc/%s", files[i]);
		bind_over(root, AT_FDCWD, from, to, 0);
	}
	for (int i = 0; i < 4; i++)
		bind_over(root, root, "dev/null", hidden[i], 0);
	for (int i = 0; i < 4; i++)
		if (faccessat(root, dirs[i], F_OK, 0) == 0)
			attach(make("tmpfs", OPTIONS("size", "0", "nr_inodes", "2"), nothing | MOUNT_ATTR_RDONLY),
			       root, dirs[i]);
	for (int i = 0; i < 5; i++)
		bind_over(root, root, fixed[i], fixed[i], 1);
}

static struct sock_filter filter[512];
static int filter_size;

static int step(unsigned short code, unsigned value, int is_true, int is_false)
{
	filter[filter_size] = (struct sock_filter){ code, is_true, is_false, value };
	return filter_size++;
}

/* A binary search over ranges of two numbers, written from its end on: its verdicts come first. */
static int search(int first, int last, int verdicts)
{
	if (first == last)
		return verdicts + first % 2;
	int middle = (first + last + 1) / 2;
	int upper = search(middle, last, verdicts), lower = search(first, middle - 1, verdicts);
	return step(BPF_JMP | BPF_JGE | BPF_K, middle * 2, filter_size - upper - 1, filter_size - lower - 1);
}

/* Of one architecture. */
static int section(void)
{
	int verdicts = step(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	step(BPF_RET | BPF_K, SECCOMP_RET_ALLOW, 0, 0);
	search(0, 203, verdicts);
	return step(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr), 0, 0);
}

static void harden_process(void)
{
	static const unsigned allowed = 1 << CAP_CHOWN | 1 << CAP_DAC_OVERRIDE | 1 << CAP_FOWNER |
					1 << CAP_FSETID | 1 << CAP_KILL | 1 << CAP_NET_BIND_SERVICE |
					1 << CAP_SETGID | 1 << CAP_SETPCAP | 1 << CAP_SETUID |
					1 << CAP_SYS_CHROOT;
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2] = { { allowed, allowed, 0 }, { 0, 0, 0 } };
	for (int cap = 0; cap <= CAP_LAST_CAP; cap++)
		if (cap > 31 || !(allowed >> cap & 1))
			prctl(PR_CAPBSET_DROP, cap, 0, 0, 0);
	SYS(capset, &header, data);
	OK(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
	int other_architectures = section();
	section();
	step(BPF_JMP | BPF_JA, filter_size - other_architectures - 1, 0, 0);
	step(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0);
	step(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch), 0, 0);
	for (int i = 0; i < filter_size / 2; i++) {
		struct sock_filter other = filter[i];
		filter[i] = filter[filter_size - 1 - i];
		filter[filter_size - 1 - i] = other;
	}
	struct sock_fprog program = { filter_size, filter };
	SYS(seccomp, SECCOMP_SET_MODE_FILTER, 0, &program);
}

static void put(const char *directory, const char *name, const char *text)
{
	char path[192];
	snprintf(path, sizeof path, "%s/%s", directory, name);
	int file = OK(open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
	OK(write(file, text, strlen(text)));
	close(file);
}

static const char *state_files[] = { "hostname", "hosts", "resolv.conf", "state.json" };
enum { STATE_FILES = sizeof state_files / sizeof *state_files };
static char groups[3][160];
static int group_count, version;

/* A cgroup as jc-cgroup makes it here: in the unified hierarchy, and in those of version 1 that have
 * the limits. Returns the unified directory, or -1. */
static int make_cgroups(void)
{
	const char *base = "/sys/fs/cgroup";
	int unified = -1;
	version = access("/sys/fs/cgroup/cgroup.procs", F_OK) == 0 ? 2 : 1;
	const char *controllers[] = { version == 2 ? "." : "unified", "memory", "pids" };
	for (int i = 0; i < (version == 2 ? 1 : 3); i++) {
		char path[128];
		snprintf(path, sizeof path, "%s/%s/cgroup.procs", base, controllers[i]);
		if (access(path, F_OK))
			continue;
		*strrchr(path, '/') = 0;
		char *group = groups[group_count++];
		snprintf(group, sizeof groups[0], "%s/floor.%d", path, getpid());
		OK(mkdir(group, 0755));
		if (i == 0)
			unified = OK(open(group, O_RDONLY | O_DIRECTORY | O_CLOEXEC));
		else if (i == 1)
			put(group, "memory.limit_in_bytes", "268435456");
		else
			put(group, "pids.max", "100");
	}
	return unified;
}

static int inside(char *directory, int is_hardened)
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
	if (is_hardened)
		harden_root(root);
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
	if (is_hardened)
		harden_process();
	execv("/bin/true", (char *[]){ "true", NULL });
	perror("exec /bin/true");
	return 1;
}

static int outside(char *self, char *directory, int is_container)
{
	sigset_t all;
	int pipes[2], network[2], pidfd = -1, status, cgroup = -1;
	struct signalfd_siginfo info;
	if (is_container) {
		snprintf(state, sizeof state, "/run/floor.%d", getpid());
		OK(mkdir(state, 0700));
		for (int i = 0; i < STATE_FILES; i++)
			put(state, state_files[i], "text\n");
		cgroup = make_cgroups();
	}
	sigfillset(&all);
	sigprocmask(SIG_BLOCK, &all, NULL);
	int signals = OK(signalfd(-1, &all, SFD_CLOEXEC));
	OK(pipe2(pipes, O_CLOEXEC));
	struct clone_args args = { .flags = CLONE_PIDFD | CLONE_NEWCGROUP | CLONE_NEWUTS |
					    CLONE_NEWIPC | CLONE_NEWPID,
				   .pidfd = (uintptr_t)&pidfd,
				   .exit_signal = SIGCHLD };
	OK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, network));
	if (cgroup >= 0) {
		args.flags |= CLONE_INTO_CGROUP;
		args.cgroup = cgroup;
	}
	pid_t child = SYS(clone3, &args, sizeof args);
	if (child == 0) {
		struct pollfd life = { pipes[0], POLLIN, 0 };
		close(pipes[1]);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		poll(&life, 1, 0);
		sigemptyset(&all);
		sigprocmask(SIG_SETMASK, &all, NULL);
		if (is_container) {
			for (int i = cgroup >= 0; i < group_count; i++)
				put(groups[i], "tasks", "0");
			OK(dup2(network[1], NETWORK));
		}
		execv(self, (char *[]){ self, is_container ? "contained" : "inside", directory, state, NULL });
		perror(self);
		_exit(1);
	}
	close(pipes[0]);
	if (is_container)
		send_network(network[0]);
	OK(read(signals, &info, sizeof info));
	OK(waitpid(child, &status, 0));
	for (int i = 0; i < group_count; i++)
		OK(rmdir(groups[i]));
	for (int i = 0; i < STATE_FILES && is_container; i++) {
		char path[128];
		snprintf(path, sizeof path, "%s/%s", state, state_files[i]);
		OK(unlink(path));
	}
	if (is_container)
		OK(rmdir(state));
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
		return outside(argv[0], argv[2], 0);
	if (argc == 3 && strcmp(argv[1], "container") == 0)
		return outside(argv[0], argv[2], 1);
	if (argc == 4 && strcmp(argv[1], "inside") == 0)
		return inside(argv[2], 0);
	if (argc == 4 && strcmp(argv[1], "contained") == 0) {
		snprintf(state, sizeof state, "%s", argv[3]);
		return inside(argv[2], 1);
	}
	if (argc > 3 && strcmp(argv[1], "time") == 0 && atoi(argv[2]) > 0)
		return stopwatch(atoi(argv[2]), argv + 3, argc - 3);
	fprintf(stderr, "usage: %s floor ROOT | container ROOT | time ROUNDS COMMAND...\n", argv[0]);
	return 2;
}
