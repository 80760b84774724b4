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
 * Source: socket(7), ip(7), ipv6(7), tcp(7). */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

#include "meshfd.h"

enum form {
    PLAIN,  /* set as it is read, whatever its size */
    HALVED, /* an int that the kernel doubles when it is set (socket(7), SO_SNDBUF) */
};

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

static void carry(const struct option *option, int from_fd, int to_fd)
{
    uint8_t from[VALUE_MAX] = {0};
    uint8_t to[VALUE_MAX] = {0};
    socklen_t from_size = sizeof(from);
    socklen_t to_size = sizeof(to);
    int value;

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
