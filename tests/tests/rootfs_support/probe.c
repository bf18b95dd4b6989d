/* Makes system calls, each in a child of its own, and prints how each one went: the words on stdin are
 * ABI NUMBER ARGUMENT..., a line each, with as many arguments as are not -1. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

static long call(const char *abi, long number, unsigned long *a)
{
#ifdef __x86_64__
	if (strcmp(abi, "x86") == 0) {
		long result;
		__asm__ volatile("int $0x80"
				 : "=a"(result)
				 : "a"(number), "b"(a[0]), "c"(a[1]), "d"(a[2]), "S"(a[3]), "D"(a[4])
				 : "memory", "r8", "r9", "r10", "r11");
		errno = result < 0 ? -result : 0;
		return result < 0 ? -1 : result;
	}
	if (strcmp(abi, "x32") == 0)
		number |= 0x40000000;
#endif
	return syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

int main(void)
{
	char line[256];
	while (fgets(line, sizeof line, stdin)) {
		unsigned long a[6] = { -1, -1, -1, -1, -1, -1 };
		char abi[16];
		int at, used, status, n = 0;
		long number;
		if (sscanf(line, "%15s %ld%n", abi, &number, &at) != 2)
			return 2;
		while (n < 6 && sscanf(line + at, "%lu%n", &a[n], &used) == 1) {
			at += used;
			n++;
		}
		fflush(stdout);
		pid_t child = fork();
		if (child == 0) {
			close(0);
			/* What waits for ever waits so long. */
			alarm(1);
			long result = call(abi, number, a);
			_exit(result == -1 ? errno : 0);
		}
		if (child < 0 || waitpid(child, &status, 0) != child)
			return 3;
		line[strcspn(line, "\n")] = 0;
		if (WIFSIGNALED(status))
			printf("%s: signal %d\n", line, WTERMSIG(status));
		else
			printf("%s: %s\n", line,
			       WEXITSTATUS(status) ? strerror(WEXITSTATUS(status)) : "fine");
	}
	return 0;
}
