/* netns.c - the network namespace that the service lives in, and others in which it has sockets
 *
 * Theory of operation: a socket belongs for ever to the network namespace of the task that makes it. So the agent
 * enters the service's before it makes anything; programs that it spawns are born there. A new
 * namespace has nothing but a loopback interface, which is down; it is brought up, for without it no program can
 * reach even itself. It ends with the last process, or socket, that is in it.
 *
 * Others are known by an index (enum mfd_netns_index), and held by an fd. To make a socket in one of them the agent
 * goes there and comes back. It has one thread, so nobody sees it elsewhere; and it must come back: one that cannot
 * ends, rather than make the next socket in the wrong place.
 *
 * Which one we are in is known by the inode of /proc/self/ns/net, and which one a socket is in by its
 * SO_NETNS_COOKIE.
 * Source: network_namespaces(7), setns(2), unshare(2), netdevice(7). */
#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "kernel.h"
#include "meshfd.h"

#define INTERFACES_MAX 256 /* looked at; addresses, in truth */

/* mfd_netns_cookie_of - the namespace of a socket; 0: not a socket, or before Linux 5.14 */
uint64_t mfd_netns_cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t size = sizeof(cookie);

    return getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &cookie, &size) < 0 ? 0 : cookie;
}

/* mfd_netns_learn - this is where we stay
 * Return: 0 or -errno. */
int mfd_netns_learn(struct mfd_netns *netns)
{
    MFD_CLOSE int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0); /* BPF counts AF_INET's */
    char name[MFD_NETNS_NAME_ROOM] = {0};

    netns->cookie = fd < 0 ? 0 : mfd_netns_cookie_of(fd);
    if (readlink("/proc/self/ns/net", name, sizeof(name) - 1) < 0)
        return -errno;
    memcpy(netns->name, name, sizeof(name));
    return 0;
}

static int bring_loopback_up(void)
{
    MFD_CLOSE int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    struct ifreq request = {.ifr_name = "lo", .ifr_flags = IFF_UP};

    return fd < 0 || ioctl(fd, SIOCSIFFLAGS, &request) < 0 ? -errno : 0;
}

/* mfd_netns_enter - move to this namespace, or, with -1, to a new one
 * Return: 0; -EPERM: that needs CAP_SYS_ADMIN; -EINVAL: the fd is something else; another -errno. */
int mfd_netns_enter(struct mfd_netns *netns, int fd)
{
    int error;

    if ((fd < 0 ? unshare(CLONE_NEWNET) : setns(fd, CLONE_NEWNET)) < 0)
        return -errno;
    error = fd < 0 ? bring_loopback_up() : 0;
    return error < 0 ? error : mfd_netns_learn(netns);
}

/* Return: the fd, or -errno. */
static int socket_in(const struct mfd_netns *netns, int netns_fd, int domain, int type,
                     int protocol)
{
    int fd;

    if (setns(netns_fd, CLONE_NEWNET) < 0)
        return -errno;
    fd = socket(domain, type | SOCK_CLOEXEC, protocol);
    if (fd < 0)
        fd = -errno;
    if (setns(netns->own_fd, CLONE_NEWNET) < 0) {
        (void)fprintf(stderr, "meshfd-agent: cannot go back to its network namespace: %s\n",
                      strerror(errno));
        abort();
    }
    return fd;
}

/* mfd_netns_add - sockets may be made in this namespace from now on, too
 * @fd: stays the caller's
 * Return: 0; -EPERM: that needs CAP_SYS_ADMIN; -EINVAL: no such index, or the fd is something else; -EOPNOTSUPP: the
 * kernel does not tell which namespace a socket is in; another -errno. */
int mfd_netns_add(struct mfd_netns *netns, uint32_t index, int fd)
{
    MFD_CLOSE int own = -1;
    MFD_CLOSE int socket_fd = -1;
    struct mfd_netns_other *other;

    if (index == MFD_NETNS_OWN || index >= MFD_NETNS_MAX)
        return -EINVAL;
    if (netns->cookie == 0)
        return -EOPNOTSUPP;
    if (netns->n_others == 0) {
        netns->own_fd = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
        if (netns->own_fd < 0)
            return -errno;
    }
    own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return -errno;
    socket_fd = socket_in(netns, own, AF_UNIX, SOCK_DGRAM, 0); /* there is a way to and fro */
    if (socket_fd < 0)
        return socket_fd;
    other = &netns->others[index];
    if (other->cookie != 0)
        (void)close(other->fd);
    else
        netns->n_others++;
    other->cookie = mfd_netns_cookie_of(socket_fd);
    other->fd = mfd_take_fd(&own);
    return 0;
}

/* mfd_netns_has_ipv4 - is there an address of IPv4 in it, but for loopback's? */
bool mfd_netns_has_ipv4(const struct mfd_netns *netns, uint32_t index)
{
    static struct ifreq interfaces[INTERFACES_MAX];
    struct ifconf request = {.ifc_len = sizeof(interfaces), .ifc_req = interfaces};
    MFD_CLOSE int fd = mfd_netns_socket(netns, index, AF_UNIX, SOCK_DGRAM, 0);

    if (fd < 0 || ioctl(fd, SIOCGIFCONF, &request) < 0)
        return false;
    for (size_t i = 0; i < (size_t)request.ifc_len / sizeof(interfaces[0]); i++) {
        struct sockaddr_in address;

        memcpy(&address, &interfaces[i].ifr_addr, sizeof(address));
        if (ntohl(address.sin_addr.s_addr) >> IN_CLASSA_NSHIFT != IN_LOOPBACKNET)
            return true;
    }
    return false;
}

/* mfd_netns_of - which of those that we know a socket is in
 * Return: its index; MFD_ANY: none of them. */
uint32_t mfd_netns_of(const struct mfd_netns *netns, int socket_fd)
{
    uint64_t cookie = mfd_netns_cookie_of(socket_fd);

    if (cookie == netns->cookie)
        return MFD_NETNS_OWN;
    for (uint32_t i = MFD_NETNS_OWN + 1; i < MFD_NETNS_MAX; i++)
        if (cookie != 0 && cookie == netns->others[i].cookie)
            return i;
    return MFD_ANY;
}

/* mfd_netns_socket - socket(2) in one of them
 * Return: the fd, close-on-exec; -ENETUNREACH: there is none of this index; what socket(2) says. */
int mfd_netns_socket(const struct mfd_netns *netns, uint32_t index, int domain, int type,
                     int protocol)
{
    int fd;

    if (index != MFD_NETNS_OWN) {
        if (index >= MFD_NETNS_MAX || netns->others[index].cookie == 0)
            return -ENETUNREACH;
        return socket_in(netns, netns->others[index].fd, domain, type, protocol);
    }
    fd = socket(domain, type | SOCK_CLOEXEC, protocol);
    return fd < 0 ? -errno : fd;
}
