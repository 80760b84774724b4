/* channel.c - the other end of an agent's control channel, for a process that waits for it
 *
 * Theory of operation: `meshfd exec` starts in front of every program that is run under it, and the
 * import of Python's socket module would be a good part of what it costs. So it has these three
 * functions instead. The supervisor and the library, which do not wait, use trio's sockets.
 *
 * Limits: MFD_CHANNEL_FDS file descriptors with one packet.
 * Source: unix(7), SCM_RIGHTS; cmsg(3). */
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "engine.h"
#include "util.h"

union channel_rights {
    struct cmsghdr align;
    uint8_t room[CMSG_SPACE(MFD_CHANNEL_FDS * sizeof(int))];
};

/* Give a socket a number that is no standard file's: those are replaced in the agent. */
static int move_above_standard(int *fd)
{
    int moved;

    if (*fd > STDERR_FILENO)
        return 0;
    moved = fcntl(*fd, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (moved < 0)
        return -errno;
    (void)close(*fd);
    *fd = moved;
    return 0;
}

int mfd_engine_channel_open(int *ret_ours, int *ret_theirs)
{
    MFD_CLOSE int ours = -1;
    MFD_CLOSE int theirs = -1;
    int pair[2];
    int error;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
        return -errno;
    ours = pair[0];
    theirs = pair[1];
    error = move_above_standard(&ours);
    if (error < 0)
        return error;
    error = move_above_standard(&theirs);
    if (error < 0)
        return error;
    *ret_ours = mfd_take_fd(&ours);
    *ret_theirs = mfd_take_fd(&theirs);
    return 0;
}

int mfd_engine_channel_send(int channel, const uint8_t *packet, size_t size, const int *fds,
                            size_t n_fds)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)packet, .iov_len = size};
    union channel_rights control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    ssize_t n;

    if (n_fds > MFD_CHANNEL_FDS)
        return -EINVAL;
    if (n_fds > 0) {
        struct cmsghdr *rights;

        message.msg_control = &control;
        message.msg_controllen = CMSG_SPACE(n_fds * sizeof(int));
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(n_fds * sizeof(int));
        memcpy(CMSG_DATA(rights), fds, n_fds * sizeof(int));
    }
    do
        n = sendmsg(channel, &message, MSG_NOSIGNAL);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : 0;
}

int mfd_engine_channel_receive(int channel, uint8_t *packet, size_t size, int *ret_fds,
                               size_t *ret_n_fds)
{
    struct iovec part = {.iov_base = packet, .iov_len = size};
    union channel_rights control = {0};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *rights;
    ssize_t n;

    do
        n = recvmsg(channel, &message, MSG_CMSG_CLOEXEC);
    while (n < 0 && errno == EINTR);
    if (n < 0)
        return -errno;
    rights = CMSG_FIRSTHDR(&message);
    *ret_n_fds = 0;
    if (rights != NULL && rights->cmsg_level == SOL_SOCKET && rights->cmsg_type == SCM_RIGHTS) {
        *ret_n_fds = (rights->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        memcpy(ret_fds, CMSG_DATA(rights), *ret_n_fds * sizeof(int));
    }
    return (int)n;
}
