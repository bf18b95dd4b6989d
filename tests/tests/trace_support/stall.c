// A program whose path is in memory that the program serves itself (userfaultfd(2)): every reader of the path waits.
// The memory never comes: the thread that would bring it makes two calls that wait for the recorder, one for each thread
// of the recorder.
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

static int faults;
static char *page;

static void *serve(void *unused) {
	struct uffd_msg fault;
	if (read(faults, &fault, sizeof fault) != sizeof fault) return unused;
	puts("waits");
	fflush(stdout);
	open(page, O_RDONLY);
	struct uffdio_zeropage zero = {{(unsigned long)page, 4096}, 0, 0};
	ioctl(faults, UFFDIO_ZEROPAGE, &zero);
	return unused;
}

int main(void) {
	struct uffdio_api api = {UFFD_API, 0, 0};
	struct uffdio_register range = {{0, 4096}, UFFDIO_REGISTER_MODE_MISSING, 0};
	pthread_t thread;
	faults = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (faults < 0 || ioctl(faults, UFFDIO_API, &api)) return 9;
	page = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	range.range.start = (unsigned long)page;
	if (ioctl(faults, UFFDIO_REGISTER, &range)) return 8;
	pthread_create(&thread, 0, serve, 0);
	open(page, O_RDONLY);
	open("/etc/hostname", O_RDONLY);
	puts("over");
	return 0;
}
