/* listening.c - the listening sockets that are open before the daemon is
 *
 * Theory of operation: they are opened on the supervisor's request, before anything is spawned, and
 * stay until it asks for their end or the agent exits. So clients queue while the daemon starts, and
 * while it restarts. A daemon that shuts such a socket down takes it out of the listening state for
 * everybody, queue and all; mfd_listening_rearm_all() looks for that at each start and end of a
 * program and makes the socket listen again (the kernel keeps its address).
 * Limits: MFD_LISTEN_MAX. Backlogs are capped by net.core.somaxconn.
 * Source: listen(2), net/ipv4/af_inet.c (inet_shutdown). */
#include <netinet/in.h>
#include <sys/socket.h>

#include "meshfd.h"

static int find_free(const struct mfd_listening_sockets *all)
{
    for (unsigned i = 0; i < all->n; i++)
        if (all->sockets[i].fd < 0)
            return (int)i;
    return all->n < MFD_LISTEN_MAX ? (int)all->n : -ENOSPC;
}

/* mfd_listening_open - open a listening socket
 * Return: 0; -ENOSPC past MFD_LISTEN_MAX; -ENETUNREACH: no such network namespace; what socket(2), bind(2) and listen(2) say. */
int mfd_listening_open(struct mfd_listening_sockets *all, const struct mfd_netns *netns,
                       const struct mfd_listen *request, uint32_t *ret_index)
{
    const int on = 1;
    const bool mapped = (request->flags & MFD_LISTEN_MAPPED) != 0;
    const int domain = mapped ? AF_INET6 : request->address.family;
    MFD_CLOSE int fd = -1;
    union mfd_sockaddr sockaddr;
    socklen_t length;
    const int v6only = (request->flags & MFD_LISTEN_V6ONLY) != 0;
    int index = find_free(all);
    int error;

    if (index < 0)
        return index;
    error = mfd_address_format(&request->address, domain, &sockaddr, &length);
    if (error < 0)
        return error;
    fd = mfd_netns_socket(netns, request->netns, domain, SOCK_STREAM, 0);
    if (fd < 0)
        return fd;
    /* as daemons do: connections of an earlier life in TIME_WAIT are no obstacle */
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) < 0)
        return -errno;
    if (domain == AF_INET6 &&
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &v6only, sizeof(v6only)) < 0)
        return -errno;
    if (bind(fd, &sockaddr.any, length) < 0 || listen(fd, (int)request->backlog) < 0)
        return -errno;
    all->sockets[index] = (struct mfd_listening){
        .cookie = mfd_socket_cookie(fd),
        .address = request->address,
        .domain = domain,
        .v6only = v6only != 0,
        .backlog = request->backlog,
    };
    all->sockets[index].fd = mfd_take_fd(&fd);
    if ((unsigned)index == all->n)
        all->n++;
    *ret_index = (uint32_t)index;
    return 0;
}

/* mfd_listening_close - close it; what a daemon holds of it stays the daemon's
 * Return: 0; -ENOENT when there is no such index. */
int mfd_listening_close(struct mfd_listening_sockets *all, uint32_t index)
{
    if (index >= all->n || all->sockets[index].fd < 0)
        return -ENOENT;
    mfd_close_at(&all->sockets[index].fd);
    while (all->n > 0 && all->sockets[all->n - 1].fd < 0)
        all->n--;
    return 0;
}

/* mfd_listening_find - which of them the file is
 * Return: the index; -ENOENT. */
int mfd_listening_find(const struct mfd_listening_sockets *all, int fd)
{
    uint64_t cookie = all->n == 0 ? 0 : mfd_socket_cookie(fd);

    for (unsigned i = 0; cookie != 0 && i < all->n; i++)
        if (all->sockets[i].fd >= 0 && all->sockets[i].cookie == cookie)
            return (int)i;
    return -ENOENT;
}

static bool rearm(const struct mfd_listening *listening)
{
    int accepting = 1;

    if (listening->fd < 0 ||
        mfd_socket_option(listening->fd, SOL_SOCKET, SO_ACCEPTCONN, &accepting) < 0 ||
        accepting != 0)
        return false;
    return listen(listening->fd, (int)listening->backlog) == 0;
}

/* mfd_listening_rearm_all - make those listen again that a program shut down */
void mfd_listening_rearm_all(struct mfd_agent *agent)
{
    for (unsigned i = 0; i < agent->listening.n; i++) {
        const struct mfd_listening *listening = &agent->listening.sockets[i];

        if (rearm(listening))
            mfd_control_notice(agent, MFD_NOTICE_REARMED, 0, 0, &listening->address, i);
    }
}
