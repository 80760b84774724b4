/* standin_calls.c - what a stand-in answers: addresses, options, a second connect()
 *
 * Theory of operation: the program believes that its fd is a TCP socket (standin.c). Calls that could tell it
 * otherwise are trapped, and answered from the record of the stand-in:
 *   getpeername()    the address that was asked for        getsockname()   what it was bound to, or would be
 *   connect()        0 if EINPROGRESS was the last it heard, then EISCONN; AF_UNSPEC: EAFNOSUPPORT, because
 *                    a unix socket cannot be made unconnected again
 *   get/setsockopt() of IP, IPv6 and TCP, and what SOL_SOCKET says of family, protocol and peer
 * On every other socket these calls are the kernel's, at the price of a look.
 *
 * Options. What a value may be, what is read back, and which errno there is, only the kernel knows. So it is
 * asked: a TCP socket is made for the one call, gets what the record holds, and the call is carried out on
 * that; what was set goes into the record. It was never connected, so what depends on that is put right
 * afterwards: TCP_INFO says ESTABLISHED, the MTU and the segment size are plausible ones.
 * Setting is done with the rights of the program (identity.c), which may be smaller than the agent's; and names that
 * act on more than the socket (netfilter's), that need a privilege, or that hold addresses of memory, are refused;
 * make_harmless.
 *
 * Addresses are truncated, and their lengths told, as the kernel does it (told.c).
 * Limits: OPTION_ROOM bytes of a value; MFD_STANDIN_OPTIONS_ROOM bytes of options are remembered.
 * Source: getsockname(2), getsockopt(2), ip(7), ipv6(7), tcp(7). */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stddef.h>
#include <string.h>
#include <sys/socket.h>

#include "kernel.h"
#include "meshfd.h"

#define OPTION_ROOM 512

#define PLAUSIBLE_MTU 65535
#define PLAUSIBLE_SEGMENT 1448 /* of Ethernet, with timestamps */
#define UNKNOWN_SEGMENT 536    /* TCP_MSS_DEFAULT, linux/tcp.h */
#define TIMESTAMPS 12          /* bytes of each segment: TCPOLEN_TSTAMP_ALIGNED, net/tcp.h */

/* Where netfilter's names begin (linux/netfilter_ipv4/ip_tables.h and its siblings). */
#define NETFILTER_FIRST 64
#define NETFILTER6_LAST 65

/* linux/tcp.h, linux/in6.h */
#define NAME_UNKNOWN 0x7fff0000 /* at every level, and to netfilter */
#define NAME_TCP_REPAIR 19
#define NAME_TCP_REPAIR_OPTIONS 22
#define NAME_TCP_REPAIR_WINDOW 29
#define NAME_TCP_ULP 31
#define NAME_TCP_FASTOPEN_NO_COOKIE 34
#define NAME_TCP_ZEROCOPY_RECEIVE 35
#define NAME_IP_TRANSPARENT 19
#define NAME_IPV6_JOIN_ANYCAST 27
#define NAME_IPV6_LEAVE_ANYCAST 28
#define NAME_IPV6_TRANSPARENT 75

static int fd_of(const struct mfd_notification *call)
{
    return (int)call->call.args[0];
}

/* mfd_standin_connect - answer connect() on a stand-in
 * Return: whether it was one. */
bool mfd_standin_connect(struct mfd_agent *agent, const struct mfd_notification *call)
{
    struct mfd_standin *standin = mfd_standin_find(agent, call, fd_of(call));
    sa_family_t family = AF_UNSPEC;
    int answer = -EISCONN;

    if (standin == NULL)
        return false;
    if (mfd_target_read(call->pid, call->call.args[1], &family, sizeof(family)) < 0) {
        answer = -EFAULT;
    } else if (family == AF_UNSPEC) {
        answer = -EAFNOSUPPORT;
    } else if (standin->untold) {
        standin->untold = false;
        answer = 0;
    }
    mfd_answer(agent, call, answer);
    return true;
}

/* --- what is told goes into the program's memory --------------------------------------------------------- */

/* @told: what the length becomes, @size bytes are written. Return: 0, -EFAULT. */
static int tell(const struct mfd_notification *call, unsigned value_argument, const void *value,
                size_t size, int told)
{
    int error = mfd_target_write(call->pid, call->call.args[value_argument], value, size);

    if (error == 0)
        error =
            mfd_target_write(call->pid, call->call.args[value_argument + 1], &told, sizeof(told));
    return error == 0 ? 0 : -EFAULT;
}

/* mfd_standin_name - answer getsockname(), or getpeername(), on a stand-in
 * Return: whether it was one. */
bool mfd_standin_name(struct mfd_agent *agent, const struct mfd_notification *call, bool peer)
{
    const struct mfd_standin *standin =
        call->pid == 0 ? NULL : mfd_standin_find(agent, call, fd_of(call));
    union mfd_sockaddr sockaddr = {0};
    socklen_t length = 0;

    if (standin == NULL)
        return false;
    (void)mfd_address_format(peer ? &standin->peer : &standin->local, standin->domain, &sockaddr,
                             &length);
    if (mfd_notify_is_alive(call))
        mfd_answer(
            agent, call,
            mfd_told_write(call->pid, call->call.args[1], call->call.args[2], &sockaddr, length));
    else
        agent->stats->vanished++;
    return true;
}

/* --- options ------------------------------------------------------------------------------------------------- */

/* An option that the program has set, on its TCP socket or since; its value follows. One after the other they
 * fill the record's room. */
struct option {
    uint16_t level;
    uint16_t name;
    uint16_t size;
};

static struct option option_at(const struct mfd_standin *standin, unsigned at)
{
    struct option option;

    memcpy(&option, &standin->options[at], sizeof(option));
    return option;
}

static void forget(struct mfd_standin *standin, int level, int name)
{
    for (unsigned at = 0; at < standin->options_size;) {
        struct option option = option_at(standin, at);
        unsigned next = at + (unsigned)sizeof(option) + option.size;

        if (option.level == level && option.name == name) {
            memmove(&standin->options[at], &standin->options[next], standin->options_size - next);
            standin->options_size = (uint16_t)(standin->options_size - (next - at));
            return;
        }
        at = next;
    }
}

static void remember(void *context, int level, int name, const void *value, socklen_t size)
{
    struct mfd_standin *standin = context;
    struct option option = {.level = (uint16_t)level, .name = (uint16_t)name};
    unsigned at;

    forget(standin, level, name);
    at = standin->options_size;
    if (level > UINT16_MAX || name > UINT16_MAX ||
        at + sizeof(option) + size > sizeof(standin->options)) /* no subtraction: it would wrap */
        return;
    option.size = (uint16_t)size;
    memcpy(&standin->options[at], &option, sizeof(option));
    memcpy(&standin->options[at + sizeof(option)], value, size);
    standin->options_size = (uint16_t)(at + sizeof(option) + size);
}

static int open_fresh(const struct mfd_standin *standin, int protocol)
{
    int fd =
        socket(standin->domain, SOCK_STREAM | SOCK_CLOEXEC, protocol == IPPROTO_TCP ? 0 : protocol);

    return fd < 0 ? -errno : fd;
}

/* mfd_standin_options_read - remember what the program had set on its TCP socket */
void mfd_standin_options_read(struct mfd_standin *standin, int tcp_fd)
{
    MFD_CLOSE int fresh_fd = open_fresh(standin, standin->protocol);

    if (fresh_fd >= 0)
        mfd_options_differing(tcp_fd, fresh_fd, remember, standin);
}

/* A TCP socket on which the program has set what it has set. */
static int open_like(const struct mfd_standin *standin, int protocol)
{
    int fd = open_fresh(standin, protocol);

    for (unsigned at = 0; fd >= 0 && at < standin->options_size;) {
        struct option option = option_at(standin, at);

        at += (unsigned)sizeof(option);
        (void)setsockopt(fd, option.level, option.name, &standin->options[at], option.size);
        at += option.size;
    }
    return fd;
}

/* The one that is asked about an option. A socket of MPTCP that is connected to a server without it passes all but
 * SOL_SOCKET on to its one connection of TCP (net/mptcp/sockopt.c), and so this stand-in is to look. */
static int open_to_ask(const struct mfd_standin *standin, int level)
{
    return open_like(standin, level == SOL_SOCKET ? standin->protocol : IPPROTO_TCP);
}

/* mfd_standin_open_like - a TCP socket on which IP's and TCP's options are as the program has set them
 * Return: 0 or -errno. */
int mfd_standin_open_like(const struct mfd_standin *standin, int *ret_fd)
{
    int fd = open_like(standin, standin->protocol);

    if (fd < 0)
        return fd;
    *ret_fd = fd;
    return 0;
}

/* Return: 0, or the -errno that a program without privileges gets. @name: one that is not for our rights becomes
 * one that the kernel does not know */
static int make_harmless(int level, int *name, bool set)
{
    switch (level) {
    case SOL_SOCKET: /* read only; see the filter */
        return 0;
    case IPPROTO_IP:
        if (set && *name == NAME_IP_TRANSPARENT)
            return -EPERM;
        if (*name >= NETFILTER_FIRST)
            *name = NAME_UNKNOWN;
        return 0;
    case IPPROTO_IPV6:
        if (set && (*name == NAME_IPV6_TRANSPARENT || *name == NAME_IPV6_JOIN_ANYCAST ||
                    *name == NAME_IPV6_LEAVE_ANYCAST))
            return -EPERM;
        if ((*name >= NETFILTER_FIRST && *name <= NETFILTER6_LAST) || *name >= 2 * NETFILTER_FIRST)
            *name = NAME_UNKNOWN;
        return 0;
    case IPPROTO_TCP:
        if (set && ((*name >= NAME_TCP_REPAIR && *name <= NAME_TCP_REPAIR_OPTIONS) ||
                    *name == NAME_TCP_REPAIR_WINDOW))
            return -EPERM;
        if (set && *name == NAME_TCP_ULP)
            return -ENOENT; /* as where it is not built in */
        if (*name == NAME_TCP_ZEROCOPY_RECEIVE)
            *name = NAME_UNKNOWN;
        return 0;
    default: /* none of TCP's; those of MPTCP hold addresses */
        *name = NAME_UNKNOWN;
        return 0;
    }
}

/* What can be set only as long as a socket is not connected, or bound. */
static bool is_too_late(int level, int name)
{
    return (level == IPPROTO_IPV6 && name == IPV6_V6ONLY) ||
           (level == IPPROTO_TCP && (name == TCP_FASTOPEN || name == TCP_FASTOPEN_CONNECT ||
                                     name == NAME_TCP_FASTOPEN_NO_COOKIE));
}

/* What every program may do, and does for each connection. */
static bool is_for_everybody(int level, int name)
{
    return level == IPPROTO_TCP &&
           (name == TCP_NODELAY || name == TCP_CORK || name == TCP_QUICKACK);
}

/* With the rights of the program. Return: 0 or -errno. */
static int set_as_program(const struct mfd_notification *call, int fd, int level, int name,
                          const void *value, socklen_t size)
{
    struct mfd_identity_change identity;
    int error = mfd_identity_enter(call, &identity);

    if (error == 0 && setsockopt(fd, level, name, value, size) < 0)
        error = -errno;
    mfd_identity_leave(&identity);
    return error;
}

static int set_option(struct mfd_standin *standin, const struct mfd_notification *call)
{
    const int level = (int)call->call.args[1];
    int name = (int)call->call.args[2];
    const int size = (int)call->call.args[4];
    uint8_t value[OPTION_ROOM];
    int error = make_harmless(level, &name, true);
    MFD_CLOSE int fd = -1;

    if (error < 0)
        return error;
    if (size < 0 || size > OPTION_ROOM)
        return -EINVAL;
    if (mfd_target_read(call->pid, call->call.args[3], value, (size_t)size) < 0)
        return -EFAULT;
    fd = open_to_ask(standin, level);
    if (fd < 0)
        return -ENOBUFS;
    if (!is_for_everybody(level, name))
        error = set_as_program(call, fd, level, name, value, (socklen_t)size);
    else if (setsockopt(fd, level, name, value, (socklen_t)size) < 0)
        error = -errno;
    if (error < 0)
        return error;
    if (is_too_late(level, name))
        return -EINVAL;
    remember(standin, level, name, value, (socklen_t)size);
    return 0;
}

/* What an unconnected socket says of the MTU is an error. */
static bool is_mtu(int level, int name)
{
    return (level == IPPROTO_IP && name == IP_MTU) || (level == IPPROTO_IPV6 && name == IPV6_MTU);
}

/* What depends on the connection: make the answer of an unconnected socket a plausible one. */
static void connected_answer(int level, int name, uint8_t *value, socklen_t size)
{
    int segment;

    if (level != IPPROTO_TCP)
        return;
    if (name == TCP_INFO && size > offsetof(struct tcp_info, tcpi_state))
        value[offsetof(struct tcp_info, tcpi_state)] = TCP_ESTABLISHED;
    if (name == TCP_MAXSEG && size == sizeof(segment)) {
        memcpy(&segment, value, sizeof(segment));
        segment = segment == UNKNOWN_SEGMENT ? PLAUSIBLE_SEGMENT : segment - TIMESTAMPS;
        memcpy(value, &segment, sizeof(segment));
    }
}

/* Return: bytes written to value, or -errno. @size: how many the program has room for */
static int read_option(const struct mfd_standin *standin, int level, int name, uint8_t *value,
                       int size)
{
    MFD_CLOSE int fd = -1;
    socklen_t length = (socklen_t)(size < OPTION_ROOM ? size : OPTION_ROOM);
    union mfd_sockaddr sockaddr;
    socklen_t full = 0;
    const int mtu = PLAUSIBLE_MTU;

    if (is_mtu(level, name)) {
        if (length > sizeof(mtu))
            length = sizeof(mtu);
        memcpy(value, &mtu, length);
        return (int)length;
    }
    if (level == SOL_SOCKET && name == SO_COOKIE) {
        if (length < sizeof(standin->told_cookie))
            return -EINVAL;
        memcpy(value, &standin->told_cookie, sizeof(standin->told_cookie));
        return sizeof(standin->told_cookie);
    }
    if (level == SOL_SOCKET && name == SO_PEERNAME) {
        (void)mfd_address_format(&standin->peer, standin->domain, &sockaddr, &full);
        if (length > full)
            return -EINVAL;
        memcpy(value, sockaddr.bytes, length);
        return (int)length;
    }
    fd = open_to_ask(standin, level);
    if (fd < 0)
        return -ENOBUFS;
    if (getsockopt(fd, level, name, value, &length) < 0)
        return -errno;
    connected_answer(level, name, value, length);
    return (int)length;
}

static int get_option(const struct mfd_standin *standin, const struct mfd_notification *call)
{
    const int level = (int)call->call.args[1];
    int name = (int)call->call.args[2];
    uint8_t value[OPTION_ROOM] = {0};
    int error = make_harmless(level, &name, false);
    int size;

    if (error < 0)
        return error;
    if (mfd_target_read(call->pid, call->call.args[4], &size, sizeof(size)) < 0)
        return -EFAULT;
    if (size < 0)
        return -EINVAL;
    size = read_option(standin, level, name, value, size);
    return size < 0 ? size : tell(call, 3, value, (size_t)size, size);
}

/* mfd_standin_option_handle - answer getsockopt(), or setsockopt() */
void mfd_standin_option_handle(struct mfd_agent *agent, const struct mfd_notification *call,
                               bool set)
{
    struct mfd_standin *standin = NULL;

    /* all of socketcall(2)'s are trapped */
    if (call->pid != 0 && mfd_filter_tells((int)call->call.args[1], (int)call->call.args[2], set))
        standin = mfd_standin_find(agent, call, fd_of(call));
    if (standin == NULL)
        mfd_answer_continue(agent, call);
    else if (!mfd_notify_is_alive(call))
        agent->stats->vanished++;
    else
        mfd_answer(agent, call, set ? set_option(standin, call) : get_option(standin, call));
}
