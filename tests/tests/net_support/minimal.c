/* The least that jc-net's bridge mode can cost: a new network namespace, and the messages of
 * netlink(7) and two settings that it takes to plug it into the bridge jc0, which is there with its rules. No lock, no
 * check of what comes back but for the error. Usage: minimal GATEWAY6 PROG [ARG...] */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/netfilter.h>
#include <linux/netfilter/nf_tables.h>
#include <linux/netfilter/nfnetlink.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

static char out[4096], in[32768];
static unsigned length;
static struct nlmsghdr *message;

static void *add(const void *data, unsigned size)
{
	void *at = out + length;
	memcpy(at, data, size);
	length += (size + 3) & ~3u;
	message->nlmsg_len = out + length - (char *)message;
	return at;
}

static void begin(int type, int flags, const void *fixed, unsigned size)
{
	struct nlmsghdr header = {.nlmsg_type = type, .nlmsg_flags = NLM_F_REQUEST | flags};
	message = (void *)(out + length);
	add(&header, sizeof header);
	add(fixed, size);
}

static struct rtattr *attribute(int type, const void *data, unsigned size)
{
	struct rtattr header = {.rta_type = type, .rta_len = 4 + size};
	struct rtattr *at = add(&header, 4);
	if (size)
		add(data, size);
	return at;
}

static void number(int type, uint32_t value) { attribute(type, &value, 4); }
static void text(int type, const char *value) { attribute(type, value, strlen(value) + 1); }
static void close_nest(struct rtattr *nest) { nest->rta_len = out + length - (char *)nest; }

static int open_socket(int protocol)
{
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, protocol), on = 1;
	setsockopt(fd, SOL_NETLINK, NETLINK_EXT_ACK, &on, 4);
	setsockopt(fd, SOL_NETLINK, NETLINK_CAP_ACK, &on, 4);
	setsockopt(fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, &on, 4);
	return fd;
}

/* Sends what there is; waits for an answer that is data, an acknowledgement, or the end of a list. */
static struct nlmsghdr *ask(int fd, int is_list)
{
	send(fd, out, length, 0);
	length = 0;
	for (;;) {
		int got = recv(fd, in, sizeof in, 0);
		struct nlmsghdr *h = (void *)in;
		for (; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
			int *code = NLMSG_DATA(h);
			if (h->nlmsg_type == NLMSG_ERROR && *code) {
				fprintf(stderr, "minimal: %s\n", strerror(-*code));
				exit(1);
			}
			if (!is_list || h->nlmsg_type == NLMSG_DONE)
				return h;
		}
	}
}

static int link_index(int fd, const char *name)
{
	struct ifinfomsg link = {0};
	begin(RTM_GETLINK, 0, &link, sizeof link);
	text(IFLA_IFNAME, name);
	number(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
	return ((struct ifinfomsg *)NLMSG_DATA(ask(fd, 0)))->ifi_index;
}

/* Without waiting for duplicates of an address the link sends at once, to every port of the bridge. */
static void zero(const char *path)
{
	int file = open(path, O_WRONLY);
	if (file < 0 || write(file, "0", 1) != 1) {
		perror(path);
		exit(1);
	}
	close(file);
}

int main(int argc, char **argv)
{
	int host = open_socket(NETLINK_ROUTE), netfilter = open_socket(NETLINK_NETFILTER), inside;
	int bridge = link_index(host, "jc0"), families[] = {AF_INET, AF_INET6}, i, index;
	struct nfgenmsg inet = {.nfgen_family = NFPROTO_INET};
	struct ifinfomsg up = {.ifi_flags = IFF_UP, .ifi_change = IFF_UP}, link = {0};
	char name[16], other[40];
	unsigned char mac[6] = {2, 0x6b}, v4[4] = {10, 88}, gateway[4] = {10, 88, 0, 1}, v6[16], gateway6[16];

	inet_pton(AF_INET6, argv[1], gateway6);
	for (i = 0; i < 2; i++) {
		struct ifaddrmsg of = {.ifa_family = families[i], .ifa_index = bridge};
		begin(RTM_GETADDR, NLM_F_DUMP, &of, sizeof of);
		ask(host, 1);
	}
	begin(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETCHAIN, 0, &inet, sizeof inet);
	text(NFTA_CHAIN_TABLE, "jc");
	text(NFTA_CHAIN_NAME, "jc0-nat");
	ask(netfilter, 0);

	/* An address whose link is not there: of a thousand, one in 65 would be. */
	do {
		getrandom(v4 + 2, 2, 0);
		v4[3] = v4[3] % 250 + 2;
		snprintf(name, sizeof name, "jc%02x%02x%02x%02x", v4[0], v4[1], v4[2], v4[3]);
	} while (if_nametoindex(name));
	unshare(CLONE_NEWNET);
	inside = open_socket(NETLINK_ROUTE);
	memcpy(mac + 2, v4, 4);
	memcpy(v6, gateway6, 16);
	memcpy(v6 + 14, v4 + 2, 2);
	strcpy(other, "jc");
	for (i = 0; i < 16; i++)
		sprintf(other + 2 + 2 * i, "%02x", v6[i]);

	begin(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &up, sizeof up);
	text(IFLA_IFNAME, name);
	number(IFLA_MTU, 1500);
	number(IFLA_MASTER, bridge);
	struct rtattr *info = attribute(IFLA_LINKINFO | NLA_F_NESTED, 0, 0);
	text(IFLA_INFO_KIND, "veth");
	struct rtattr *data = attribute(IFLA_INFO_DATA | NLA_F_NESTED, 0, 0);
	struct rtattr *peer = attribute(VETH_INFO_PEER, 0, 0);
	add(&link, sizeof link);
	text(IFLA_IFNAME, "eth0");
	attribute(IFLA_ADDRESS, mac, 6);
	number(IFLA_MTU, 1500);
	number(IFLA_NET_NS_PID, getpid());
	close_nest(peer), close_nest(data), close_nest(info);
	ask(host, 0);

	begin(RTM_NEWLINKPROP, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, &link, sizeof link);
	text(IFLA_IFNAME, name);
	struct rtattr *list = attribute(IFLA_PROP_LIST | NLA_F_NESTED, 0, 0);
	text(IFLA_ALT_IFNAME, other);
	close_nest(list);
	ask(host, 0);

	index = link_index(inside, "eth0");
	zero("/proc/sys/net/ipv6/conf/eth0/accept_ra");
	zero("/proc/sys/net/ipv6/conf/eth0/accept_dad");
	up.ifi_index = 1;
	begin(RTM_NEWLINK, 0, &up, sizeof up);
	up.ifi_index = index;
	begin(RTM_NEWLINK, 0, &up, sizeof up);
	for (i = 0; i < 2; i++) {
		struct ifaddrmsg of = {.ifa_family = families[i], .ifa_prefixlen = i ? 64 : 16, .ifa_index = index};
		begin(RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, &of, sizeof of);
		attribute(IFA_LOCAL, i ? v6 : v4, i ? 16 : 4);
		attribute(IFA_ADDRESS, i ? v6 : v4, i ? 16 : 4);
		if (i)
			number(IFA_FLAGS, IFA_F_NODAD);
	}
	for (i = 0; i < 2; i++) {
		struct rtmsg route = {.rtm_family = families[i], .rtm_table = RT_TABLE_MAIN,
				      .rtm_protocol = RTPROT_STATIC, .rtm_type = RTN_UNICAST};
		begin(RTM_NEWROUTE, NLM_F_CREATE | NLM_F_EXCL | (i ? NLM_F_ACK : 0), &route, sizeof route);
		attribute(RTA_GATEWAY, i ? gateway6 : gateway, i ? 16 : 4);
		number(RTA_OIF, index);
	}
	ask(inside, 0);

	link_index(host, name);
	link_index(inside, "eth0");
	struct rtmsg route = {.rtm_family = AF_INET6, .rtm_dst_len = 128};
	begin(RTM_GETROUTE, 0, &route, sizeof route);
	attribute(RTA_DST, v6, 16);
	ask(inside, 0);

	execvp(argv[2], argv + 2);
	return argc != 0;
}
