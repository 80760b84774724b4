/* netns.c - the network namespace that the service lives in
 *
 * Theory of operation: a socket belongs for ever to the network namespace of the task that makes it. So the agent
 * enters the service's before it makes anything, and never leaves; programs that it spawns are born there. A new
 * namespace has nothing but a loopback interface, which is down; it is brought up, for without it no program can
 * reach even itself. It ends with the last process, or socket, that is in it.
 *
 * Which one we are in is known by the inode of /proc/self/ns/net, and by the cookie of our sockets.
 * Source: network_namespaces(7), setns(2), unshare(2), netdevice(7). */
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "kernel.h"
#include "meshfd.h"

/* mfd_netns_learn - this is where we stay
 * Return: 0 or -errno. */
int mfd_netns_learn(struct mfd_netns *netns)
{
    MFD_CLOSE int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    socklen_t size = sizeof(netns->cookie);
    struct stat status;

    netns->cookie = 0;
    if (fd >= 0)
        (void)getsockopt(fd, SOL_SOCKET, SO_NETNS_COOKIE, &netns->cookie, &size);
    if (stat("/proc/self/ns/net", &status) < 0)
        return -errno;
    netns->device = status.st_dev;
    netns->inode = status.st_ino;
    return 0;
}

static int bring_loopback_up(void)
{
    MFD_CLOSE int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
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
