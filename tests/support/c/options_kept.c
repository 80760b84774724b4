/* options_kept.c - options_kept HOST PORT [mapped]: options set before connect(), and what they are after
 *
 * Each option that native/options.c lists, and those about binding, gets a value that is nobody's
 * default; what the kernel says of it is printed before the connection and when it is there. An option
 * that cannot be had (a privilege, a family) says so both times. */
#include "say.h"

#define VALUE_MAX 64

static const struct option {
    const char *name;
    int level;
    int option;
    socklen_t size; /* 0: an int */
    int number;
    const void *bytes;
    int changes; /* by the connection itself, at its own pace: not looked at afterwards */
} options[] = {
    {"SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 0, 1, NULL, 0},
    {"SO_LINGER", SOL_SOCKET, SO_LINGER, 8, 0, &(struct linger){1, 7}, 0},
    {"SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 0, 1, NULL, 0},
    {"SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 0, 1, NULL, 0},
    {"SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 0, 1, NULL, 0},
    {"SO_SNDBUF", SOL_SOCKET, SO_SNDBUF, 0, 50000, NULL, 0},
    {"SO_RCVBUF", SOL_SOCKET, SO_RCVBUF, 0, 60000, NULL, 0},
    {"SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 0, 3, NULL, 0},
    {"SO_RCVTIMEO", SOL_SOCKET, SO_RCVTIMEO, sizeof(long) * 2, 0, (long[]){30, 500000}, 0},
    {"SO_SNDTIMEO", SOL_SOCKET, SO_SNDTIMEO, sizeof(long) * 2, 0, (long[]){40, 0}, 0},
    {"SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 0, 5, NULL, 0},
    {"SO_MARK", SOL_SOCKET, SO_MARK, 0, 4711, NULL, 0},
    {"SO_BINDTODEVICE", SOL_SOCKET, SO_BINDTODEVICE, 3, 0, "lo", 0},
    {"SO_INCOMING_CPU", SOL_SOCKET, SO_INCOMING_CPU, 0, 0, NULL, 1},
    {"SO_BUSY_POLL", SOL_SOCKET, SO_BUSY_POLL, 0, 5, NULL, 0},
    {"SO_TIMESTAMP", SOL_SOCKET, SO_TIMESTAMP, 0, 1, NULL, 0},
    {"SO_DONTROUTE", SOL_SOCKET, SO_DONTROUTE, 0, 1, NULL, 0},
    {"SO_ZEROCOPY", SOL_SOCKET, SO_ZEROCOPY, 0, 1, NULL, 0},
    {"SO_RXQ_OVFL", SOL_SOCKET, SO_RXQ_OVFL, 0, 1, NULL, 0},
    {"IP_TOS", IPPROTO_IP, IP_TOS, 0, 0x20, NULL, 0},
    {"IP_TTL", IPPROTO_IP, IP_TTL, 0, 33, NULL, 0},
    {"IP_MTU_DISCOVER", IPPROTO_IP, IP_MTU_DISCOVER, 0, IP_PMTUDISC_DONT, NULL, 0},
    {"IP_TRANSPARENT", IPPROTO_IP, IP_TRANSPARENT, 0, 1, NULL, 0},
    {"IP_FREEBIND", IPPROTO_IP, IP_FREEBIND, 0, 1, NULL, 0},
    {"IP_BIND_ADDRESS_NO_PORT", IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 0, 1, NULL, 0},
    {"IP_RECVERR", IPPROTO_IP, IP_RECVERR, 0, 1, NULL, 0},
    {"IP_PKTINFO", IPPROTO_IP, IP_PKTINFO, 0, 1, NULL, 0},
    {"IP_RECVTTL", IPPROTO_IP, IP_RECVTTL, 0, 1, NULL, 0},
    {"IP_RECVTOS", IPPROTO_IP, IP_RECVTOS, 0, 1, NULL, 0},
    {"IP_RECVORIGDSTADDR", IPPROTO_IP, IP_RECVORIGDSTADDR, 0, 1, NULL, 0},
    {"IPV6_TCLASS", IPPROTO_IPV6, IPV6_TCLASS, 0, 0x20, NULL, 0},
    {"IPV6_UNICAST_HOPS", IPPROTO_IPV6, IPV6_UNICAST_HOPS, 0, 33, NULL, 0},
    {"IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY, 0, 0, NULL, 0},
    {"IPV6_RECVPKTINFO", IPPROTO_IPV6, IPV6_RECVPKTINFO, 0, 1, NULL, 0},
    {"IPV6_RECVHOPLIMIT", IPPROTO_IPV6, IPV6_RECVHOPLIMIT, 0, 1, NULL, 0},
    {"IPV6_RECVTCLASS", IPPROTO_IPV6, IPV6_RECVTCLASS, 0, 1, NULL, 0},
    {"TCP_MAXSEG", IPPROTO_TCP, TCP_MAXSEG, 0, 1000, NULL, 0},
    {"TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 0, 1, NULL, 0},
    {"TCP_CORK", IPPROTO_TCP, TCP_CORK, 0, 1, NULL, 0},
    {"TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 0, 111, NULL, 0},
    {"TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 0, 11, NULL, 0},
    {"TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 0, 4, NULL, 0},
    {"TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 0, 2, NULL, 0},
    {"TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 0, 13, NULL, 0},
    {"TCP_DEFER_ACCEPT", IPPROTO_TCP, TCP_DEFER_ACCEPT, 0, 3, NULL, 0},
    {"TCP_WINDOW_CLAMP", IPPROTO_TCP, TCP_WINDOW_CLAMP, 0, 40000, NULL, 0},
    {"TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 0, 9000, NULL, 0},
    {"TCP_FASTOPEN_CONNECT", IPPROTO_TCP, TCP_FASTOPEN_CONNECT, 0, 0, NULL, 0},
    {"TCP_NOTSENT_LOWAT", IPPROTO_TCP, TCP_NOTSENT_LOWAT, 0, 16384, NULL, 0},
    {"TCP_CONGESTION", IPPROTO_TCP, TCP_CONGESTION, 4, 0, "reno", 0},
    {"TCP_QUICKACK", IPPROTO_TCP, TCP_QUICKACK, 0, 0, NULL, 1},
};

#define N_OPTIONS (sizeof(options) / sizeof(options[0]))

static void say_option(int fd, const struct option *option, const char *when)
{
    unsigned char value[VALUE_MAX] = {0};
    socklen_t size = sizeof(value);
    int result = getsockopt(fd, option->level, option->option, value, &size);

    printf("%s %s: ", option->name, when);
    if (result < 0)
        printf("%s", name_of(errno));
    for (socklen_t i = 0; result == 0 && i < size; i++)
        printf("%02x", value[i]);
    printf("\n");
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[1], argv[2]);
    char mapped[64];
    int fd;

    if (argc > 3) {
        snprintf(mapped, sizeof(mapped), "::ffff:%s", argv[1]);
        address = address_of(mapped, argv[2]);
    }
    fd = tcp_socket(&address, 0);
    for (const struct option *one = options; one < options + N_OPTIONS; one++)
        say(setsockopt(fd, one->level, one->option, one->size ? one->bytes : &one->number,
                       one->size ? one->size : sizeof(one->number)),
            "set %s", one->name);
    for (const struct option *one = options; one < options + N_OPTIONS; one++)
        say_option(fd, one, "before");
    say(dial(fd, &address), "connect");
    wait_for(fd, POLLIN);
    for (const struct option *one = options; one < options + N_OPTIONS; one++)
        if (!one->changes)
            say_option(fd, one, "after");
    say_rest(fd, "greeting");
    return 0;
}
