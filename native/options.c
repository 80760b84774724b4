/* options.c - carry the options that a program set on its socket over to another
 *
 * Theory of operation: which options were set is not known, because setsockopt() is not trapped, and
 * need not be: every option that a daemon may set on a socket before bind() is read from both sockets,
 * and where they differ the listening socket is made like the program's. An option that the running
 * kernel or protocol lacks fails in both and is passed over; so does one that needs a privilege that
 * the agent lacks, which the program lacked, too.
 *
 * Not carried: SO_REUSEADDR and SO_REUSEPORT (they matter at bind(), which is past), IPV6_V6ONLY (part
 * of what the address means), SO_ATTACH_FILTER and friends (cannot be read back as a program).
 *
 * A socket that takes another's place in a namespace (elsewhere.c) is a client's, unbound as yet, of TCP or UDP:
 * these three go along, and so does what datagrams and their senders have. Still not carried: filters; keys of
 * TCP_MD5SIG; multicast groups; interfaces that are named by their index (IP_UNICAST_IF, IP_MULTICAST_IF), for it
 * is another's there.
 * Source: socket(7), ip(7), ipv6(7), tcp(7), udp(7). */
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "kernel.h"
#include "meshfd.h"

enum form {
    PLAIN,  /* set as it is read, whatever its size */
    HALVED, /* an int that the kernel doubles when it is set (socket(7), SO_SNDBUF) */
};

/* SO_BUF_LOCK: which of the two were set, and are not the kernel's choice (net/sock.h). */
#define SNDBUF_LOCK 1
#define RCVBUF_LOCK 2

struct option {
    int level;
    int name;
    enum form form;
};

#define VALUE_MAX 64 /* TCP_CONGESTION and SO_BINDTODEVICE take 16 */

static const struct option options[] = {
    {SOL_SOCKET, SO_KEEPALIVE, PLAIN},
    {SOL_SOCKET, SO_LINGER, PLAIN},
    {SOL_SOCKET, SO_OOBINLINE, PLAIN},
    {SOL_SOCKET, SO_SNDBUF, HALVED},
    {SOL_SOCKET, SO_RCVBUF, HALVED},
    {SOL_SOCKET, SO_RCVLOWAT, PLAIN},
    {SOL_SOCKET, SO_RCVTIMEO, PLAIN},
    {SOL_SOCKET, SO_SNDTIMEO, PLAIN},
    {SOL_SOCKET, SO_PRIORITY, PLAIN},
    {SOL_SOCKET, SO_MARK, PLAIN},
    {SOL_SOCKET, SO_BINDTODEVICE, PLAIN},
    {SOL_SOCKET, SO_INCOMING_CPU, PLAIN},
    {SOL_SOCKET, SO_BUSY_POLL, PLAIN},
    {SOL_SOCKET, SO_TIMESTAMP, PLAIN},
    {SOL_SOCKET, SO_DONTROUTE, PLAIN},
    {SOL_SOCKET, SO_ZEROCOPY, PLAIN},
    {IPPROTO_IP, IP_TOS, PLAIN},
    {IPPROTO_IP, IP_TTL, PLAIN},
    {IPPROTO_IP, IP_MTU_DISCOVER, PLAIN},
    {IPPROTO_IP, IP_TRANSPARENT, PLAIN},
    {IPPROTO_IP, IP_FREEBIND, PLAIN},
    {IPPROTO_IPV6, IPV6_TCLASS, PLAIN},
    {IPPROTO_IPV6, IPV6_UNICAST_HOPS, PLAIN},
    {IPPROTO_TCP, TCP_NODELAY, PLAIN},
    {IPPROTO_TCP, TCP_CORK, PLAIN},
    {IPPROTO_TCP, TCP_KEEPIDLE, PLAIN},
    {IPPROTO_TCP, TCP_KEEPINTVL, PLAIN},
    {IPPROTO_TCP, TCP_KEEPCNT, PLAIN},
    {IPPROTO_TCP, TCP_SYNCNT, PLAIN},
    {IPPROTO_TCP, TCP_LINGER2, PLAIN},
    {IPPROTO_TCP, TCP_DEFER_ACCEPT, PLAIN},
    {IPPROTO_TCP, TCP_WINDOW_CLAMP, PLAIN},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, PLAIN},
    {IPPROTO_TCP, TCP_FASTOPEN, PLAIN},
    {IPPROTO_TCP, TCP_NOTSENT_LOWAT, PLAIN},
    {IPPROTO_TCP, TCP_CONGESTION, PLAIN},
    {IPPROTO_TCP, TCP_QUICKACK, PLAIN},
};

/* What says something of a stand-in's past besides; it is kept for it, and carried to one of the same kind alone. */
static const struct option kept[] = {
    {IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, PLAIN},
    {IPPROTO_IP, IP_RECVERR, PLAIN},
    {IPPROTO_IP, IP_MINTTL, PLAIN},
    {IPPROTO_IP, IP_PKTINFO, PLAIN},
    {IPPROTO_IP, IP_RECVTTL, PLAIN},
    {IPPROTO_IP, IP_RECVTOS, PLAIN},
    {IPPROTO_IP, IP_RECVORIGDSTADDR, PLAIN},
    {IPPROTO_IPV6, IPV6_V6ONLY, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVERR, PLAIN},
    {IPPROTO_IPV6, IPV6_MTU_DISCOVER, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVPKTINFO, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVHOPLIMIT, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVTCLASS, PLAIN},
    {IPPROTO_TCP, TCP_MAXSEG, PLAIN},
    {IPPROTO_TCP, TCP_SAVE_SYN, PLAIN},
    {IPPROTO_TCP, TCP_FASTOPEN_CONNECT, PLAIN},
    {IPPROTO_TCP, TCP_FASTOPEN_NO_COOKIE, PLAIN},
    {IPPROTO_TCP, TCP_INQ, PLAIN},
};

/* Past their use on a listening socket, but to be read back from a stand-in. */
static const struct option standin_too[] = {
    {SOL_SOCKET, SO_REUSEADDR, PLAIN},
    {SOL_SOCKET, SO_RXQ_OVFL, PLAIN},
};

/* For a socket of the same kind besides: what a client sets, and what datagrams have. */
static const struct option same_kind[] = {
    {SOL_SOCKET, SO_REUSEPORT, PLAIN},
    {SOL_SOCKET, SO_BROADCAST, PLAIN},
    {SOL_SOCKET, SO_NO_CHECK, PLAIN},
    {SOL_SOCKET, SO_PEEK_OFF, PLAIN},
    {SOL_SOCKET, SO_SELECT_ERR_QUEUE, PLAIN},
    {SOL_SOCKET, SO_TIMESTAMPNS, PLAIN},
    {SOL_SOCKET, SO_TIMESTAMP_NEW, PLAIN},
    {SOL_SOCKET, SO_TIMESTAMPNS_NEW, PLAIN},
    {SOL_SOCKET, SO_TIMESTAMPING, PLAIN},
    {SOL_SOCKET, SO_MAX_PACING_RATE, PLAIN},
    {SOL_SOCKET, SO_PREFER_BUSY_POLL, PLAIN},
    {SOL_SOCKET, SO_TXREHASH, PLAIN},
    {IPPROTO_IP, IP_OPTIONS, PLAIN},
    {IPPROTO_IP, IP_RECVOPTS, PLAIN},
    {IPPROTO_IP, IP_RETOPTS, PLAIN},
    {IPPROTO_IP, IP_CHECKSUM, PLAIN},
    {IPPROTO_IP, IP_RECVFRAGSIZE, PLAIN},
    {IPPROTO_IP, IP_MULTICAST_TTL, PLAIN},
    {IPPROTO_IP, IP_MULTICAST_LOOP, PLAIN},
    {IPPROTO_IP, IP_MULTICAST_ALL, PLAIN},
    {IPPROTO_IP, IP_LOCAL_PORT_RANGE, PLAIN},
    {IPPROTO_IPV6, IPV6_MULTICAST_HOPS, PLAIN},
    {IPPROTO_IPV6, IPV6_MULTICAST_LOOP, PLAIN},
    {IPPROTO_IPV6, IPV6_MULTICAST_ALL, PLAIN},
    {IPPROTO_IPV6, IPV6_DONTFRAG, PLAIN},
    {IPPROTO_IPV6, IPV6_AUTOFLOWLABEL, PLAIN},
    {IPPROTO_IPV6, IPV6_ADDR_PREFERENCES, PLAIN},
    {IPPROTO_IPV6, IPV6_MINHOPCOUNT, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVORIGDSTADDR, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVFRAGSIZE, PLAIN},
    {IPPROTO_IPV6, IPV6_RECVPATHMTU, PLAIN},
    {IPPROTO_TCP, TCP_THIN_LINEAR_TIMEOUTS, PLAIN},
    {IPPROTO_TCP, TCP_TX_DELAY, PLAIN},
    {IPPROTO_UDP, UDP_CORK, PLAIN},
    {IPPROTO_UDP, UDP_SEGMENT, PLAIN},
    {IPPROTO_UDP, UDP_GRO, PLAIN},
};

/* A buffer whose size the kernel chose is not carried: another kind of socket has another. Before Linux 5.14
 * that cannot be told. */
static bool is_own_choice(const struct option *option, int fd)
{
    int lock = 0;

    if (option->form != HALVED || mfd_socket_option(fd, SOL_SOCKET, SO_BUF_LOCK, &lock) < 0)
        return false;
    return (lock & (option->name == SO_SNDBUF ? SNDBUF_LOCK : RCVBUF_LOCK)) == 0;
}

/* An earlier daemon set the size, this one leaves it to the kernel, whose choice from_fd has. */
static void give_back(const struct option *option, int from_fd, int to_fd)
{
    int size = 0;
    int lock = 0;

    if (mfd_socket_option(from_fd, option->level, option->name, &size) < 0)
        return;
    size /= 2;
    (void)setsockopt(to_fd, option->level, option->name, &size, sizeof(size));
    (void)mfd_socket_option(to_fd, SOL_SOCKET, SO_BUF_LOCK, &lock);
    lock &= ~(option->name == SO_SNDBUF ? SNDBUF_LOCK : RCVBUF_LOCK);
    (void)setsockopt(to_fd, SOL_SOCKET, SO_BUF_LOCK, &lock, sizeof(lock));
}

static void carry(const struct option *option, int from_fd, int to_fd)
{
    uint8_t from[VALUE_MAX] = {0};
    uint8_t to[VALUE_MAX] = {0};
    socklen_t from_size = sizeof(from);
    socklen_t to_size = sizeof(to);
    int value;

    if (is_own_choice(option, from_fd)) {
        if (!is_own_choice(option, to_fd))
            give_back(option, from_fd, to_fd);
        return;
    }
    if (getsockopt(from_fd, option->level, option->name, from, &from_size) < 0 ||
        getsockopt(to_fd, option->level, option->name, to, &to_size) < 0)
        return;
    if (from_size == to_size && memcmp(from, to, from_size) == 0)
        return;
    if (option->form == HALVED) {
        memcpy(&value, from, sizeof(value));
        value /= 2;
        memcpy(from, &value, sizeof(value));
    }
    (void)setsockopt(to_fd, option->level, option->name, from, from_size);
}

/* mfd_options_carry - make to_fd's options those of from_fd */
void mfd_options_carry(int from_fd, int to_fd)
{
    for (size_t i = 0; i < MFD_COUNT(options); i++)
        carry(&options[i], from_fd, to_fd);
}

/* mfd_options_carry_standin - make the options of SOL_SOCKET of a unix socket, to_fd, those of a TCP socket */
void mfd_options_carry_standin(int from_fd, int to_fd)
{
    for (size_t i = 0; i < MFD_COUNT(options); i++)
        if (options[i].level == SOL_SOCKET)
            carry(&options[i], from_fd, to_fd);
    for (size_t i = 0; i < MFD_COUNT(standin_too); i++)
        carry(&standin_too[i], from_fd, to_fd);
}

/* mfd_options_carry_all - make to_fd, a socket of the same kind on which nothing has happened, like from_fd */
void mfd_options_carry_all(int from_fd, int to_fd)
{
    mfd_options_carry(from_fd, to_fd);
    for (size_t i = 0; i < MFD_COUNT(kept); i++)
        carry(&kept[i], from_fd, to_fd);
    for (size_t i = 0; i < MFD_COUNT(standin_too); i++)
        carry(&standin_too[i], from_fd, to_fd);
    for (size_t i = 0; i < MFD_COUNT(same_kind); i++)
        carry(&same_kind[i], from_fd, to_fd);
}

static void compare(const struct option *option, int fd, int fresh_fd, mfd_option_take *take,
                    void *context)
{
    uint8_t value[VALUE_MAX] = {0};
    uint8_t usual[VALUE_MAX] = {0};
    socklen_t size = sizeof(value);
    socklen_t usual_size = sizeof(usual);

    if (option->level == SOL_SOCKET ||
        getsockopt(fd, option->level, option->name, value, &size) < 0 ||
        getsockopt(fresh_fd, option->level, option->name, usual, &usual_size) < 0)
        return;
    if (size != usual_size || memcmp(value, usual, size) != 0)
        take(context, option->level, option->name, value, size);
}

/* mfd_options_differing - what was set on fd at the levels of IP and TCP
 * @fresh_fd: a socket of the same kind on which nothing was */
void mfd_options_differing(int fd, int fresh_fd, mfd_option_take *take, void *context)
{
    for (size_t i = 0; i < MFD_COUNT(options); i++)
        compare(&options[i], fd, fresh_fd, take, context);
    for (size_t i = 0; i < MFD_COUNT(kept); i++)
        compare(&kept[i], fd, fresh_fd, take, context);
}
