/* Tries ways from a container to the host and to what all processes of the host share, each in a child of
 * its own, and prints the names of those that are open. A call that the kernel refuses to everybody of this
 * process' privileges fails with EPERM, EACCES, EROFS or ENOSYS; any other error has passed that check. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/bpf.h>
#include <linux/perf_event.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/fanotify.h>
#include <sys/klog.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/timex.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __x86_64__
#include <sys/io.h>
#endif

static int may(long result)
{
	return result >= 0 || (errno != EPERM && errno != EACCES && errno != EROFS && errno != ENOSYS);
}

static int writes(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && (!*text || write(fd, text, strlen(text)) > 0);
}

static int mounts(void) { return mount("none", "/tmp", "tmpfs", 0, NULL) == 0; }

static int remounts(void)
{
	return mount(NULL, "/proc/sys", NULL, MS_REMOUNT | MS_BIND, NULL) == 0;
}

/* A device of its own making: /dev/null stands for the disk. */
static int devices(void)
{
	static const char *const places[] = { "/d", "/dev/d", "/dev/shm/d", "/tmp/d", "/etc/d", "/dev/pts/d", "/dev/mqueue/d" };
	int found = 0;
	for (unsigned i = 0; i < sizeof places / sizeof *places; i++)
		if (mknod(places[i], S_IFCHR | 0666, makedev(1, 3)) == 0) {
			found |= open(places[i], O_RDONLY | O_CLOEXEC) >= 0;
			unlink(places[i]);
		}
	return found;
}

static int handles(void)
{
	union {
		struct file_handle head;
		char space[sizeof(struct file_handle) + MAX_HANDLE_SZ];
	} handle = { .head.handle_bytes = MAX_HANDLE_SZ };
	int mount, root = open("/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	/* A file system without handles has no such way. */
	if (name_to_handle_at(AT_FDCWD, "/bin", &handle.head, &mount, 0) != 0)
		return 0;
	return open_by_handle_at(root, &handle.head, O_RDONLY | O_CLOEXEC) >= 0;
}

static int namespaces(void)
{
	return setns(open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC), 0) == 0 || unshare(CLONE_NEWNS) == 0;
}

static int user_namespaces(void) { return unshare(CLONE_NEWUSER) == 0; }

static int bpf(void)
{
	union bpf_attr attr = { .map_type = BPF_MAP_TYPE_ARRAY, .key_size = 4, .value_size = 8, .max_entries = 1 };
	return syscall(SYS_bpf, BPF_MAP_CREATE, &attr, sizeof attr) >= 0;
}

static int perf(void)
{
	struct perf_event_attr attr = { .type = PERF_TYPE_SOFTWARE, .size = sizeof attr };
	return may(syscall(SYS_perf_event_open, &attr, -1, 0, -1, 0));
}

static int kexec(void) { return may(syscall(SYS_kexec_load, 0, 1UL << 30, NULL, ~0UL)); }
static int modules(void) { return may(syscall(SYS_init_module, NULL, 0, "")); }
static int quotas(void) { return may(syscall(SYS_quotactl, 0x80000300, "/none", 0, NULL)); }
static int accounting(void) { return may(syscall(SYS_acct, "/none")); }
static int swap(void) { return may(syscall(SYS_swapon, "/none", 0)); }
static int keys(void) { return may(syscall(SYS_add_key, "user", "a", "b", 1, -4)); }
static int logs(void) { return klogctl(10, NULL, 0) >= 0; }
static int hangup(void) { return setsid() >= 0 && may(syscall(SYS_vhangup)); }

static int clocks(void)
{
	struct timex change = { .modes = ADJ_TICK };
	return may(adjtimex(&change));
}

static int ports(void)
{
#ifdef __x86_64__
	return ioperm(0x80, 1, 1) == 0;
#else
	return 0;
#endif
}

static int watches(void)
{
	int fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC, O_RDONLY);
	return fd >= 0 && fanotify_mark(fd, FAN_MARK_ADD | FAN_MARK_FILESYSTEM, FAN_OPEN, AT_FDCWD, "/") == 0;
}

static int settings(void)
{
	return writes("/proc/sys/kernel/core_pattern", "") || writes("/proc/sys/vm/drop_caches", "") ||
	       writes("/proc/sysrq-trigger", "");
}

static int kernel_objects(void)
{
	return writes("/sys/kernel/mm/transparent_hugepage/enabled", "") || writes("/sys/power/state", "") ||
	       writes("/sys/kernel/uevent_helper", "");
}

static int groups(void)
{
	return mkdir("/sys/fs/cgroup/d", 0700) == 0 || mkdir("/sys/fs/cgroup/memory/d", 0700) == 0 ||
	       writes("/sys/fs/cgroup/memory/release_agent", "");
}


static int score(void) { return writes("/proc/self/oom_score_adj", "-1000"); }
static int priority(void) { return setpriority(PRIO_PROCESS, 0, -5) == 0; }

static int real_time(void)
{
	struct sched_param param = { .sched_priority = 1 };
	return sched_setscheduler(0, SCHED_FIFO, &param) == 0;
}

/* The root of another process outside. */
static int neighbours(void)
{
	char path[64];
	struct stat own, other;
	stat("/", &own);
	for (int pid = 1; pid < 64; pid++) {
		snprintf(path, sizeof path, "/proc/%d/root", pid);
		if (stat(path, &other) == 0 && (own.st_dev != other.st_dev || own.st_ino != other.st_ino))
			return 1;
	}
	return 0;
}

/* chroot(2) twice, without leaving the working directory. */
static int above(void)
{
	struct stat own, other;
	stat("/", &own);
	mkdir("/tmp/c", 0700);
	int root = open("/", O_RDONLY | O_DIRECTORY);
	if (chroot("/tmp/c") != 0 || fchdir(root) != 0)
		return 0;
	for (int i = 0; i < 64; i++)
		if (chdir("..") != 0)
			return 0;
	return stat(".", &other) == 0 && (own.st_dev != other.st_dev || own.st_ino != other.st_ino);
}

static const struct {
	const char *name;
	int (*is_open)(void);
} ways[] = {
	{ "mount", mounts },	      { "remount", remounts },	  { "device", devices },
	{ "handle", handles },	      { "namespace", namespaces }, { "user-namespace", user_namespaces },
	{ "bpf", bpf },		      { "perf", perf },		  { "kexec", kexec },
	{ "module", modules },	      { "quota", quotas },	  { "accounting", accounting },
	{ "swap", swap },	      { "key", keys },		  { "log", logs },
	{ "hangup", hangup },	      { "clock", clocks },	  { "port", ports },
	{ "watch", watches },	      { "setting", settings },	  { "kernel-object", kernel_objects },
	{ "group", groups },	      { "score", score },
	{ "priority", priority },     { "real-time", real_time }, { "neighbour", neighbours },
	{ "above", above },
};

int main(void)
{
	for (unsigned i = 0; i < sizeof ways / sizeof *ways; i++) {
		int status;
		pid_t child = fork();
		if (child == 0) {
			alarm(5);
			_exit(ways[i].is_open() ? 7 : 0);
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			return 3;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 7)
			printf("%s ", ways[i].name);
	}
	printf("tried\n");
	return 0;
}
