/* channel.c - the other end of an agent's control channel, for a process that waits for it
 *
 * Theory of operation: `meshfd exec` starts in front of every program that is run under it, and the
 * import of Python's socket module would be a good part of what it costs. So it has these three
 * functions instead. The supervisor and the library, which do not wait, use trio's sockets.
 * What is in a packet is rights.c's.
 * Source: unix(7). */
#include <fcntl.h>
#include <sys/socket.h>

#include "engine.h"
#include "rights.h"
#include "util.h"

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
    int error;

    do
        error = mfd_rights_send(channel, packet, size, fds, n_fds, 0);
    while (error == -EINTR);
    return error;
}

int mfd_engine_channel_receive(int channel, uint8_t *packet, size_t size, int *ret_fds,
                               size_t *ret_n_fds)
{
    size_t n_fds = MFD_CHANNEL_FDS;
    ssize_t n;

    do
        n = mfd_rights_receive(channel, packet, size, ret_fds, &n_fds, 0);
    while (n == -EINTR);
    if (n >= 0)
        *ret_n_fds = n_fds;
    return (int)n;
}
