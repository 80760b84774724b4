/* rights.c - a packet on a unix socket, with files or without
 *
 * Theory of operation: a packet arrives as it was sent or not at all. The kernel cuts what does not fit, and
 * gives a process that has no number left only some of the files, or none; who looked at what came alone would
 * take a part for the whole. Then it is an error here, and the files that did come are closed.
 * Limits: MFD_CHANNEL_FDS files with one packet. The sockets ask for no other ancillary data.
 * Source: unix(7) SCM_RIGHTS, cmsg(3), recvmsg(2) MSG_TRUNC and MSG_CTRUNC; net/core/scm.c (scm_detach_fds). */
#include "rights.h"

#include <string.h>
#include <sys/socket.h>

#include "util.h"
#include "wire.h"

union rights {
    struct cmsghdr align;
    uint8_t room[CMSG_SPACE(MFD_CHANNEL_FDS * sizeof(int))];
};

/* mfd_rights_send - send a packet
 * @fds: to go along; stay the caller's
 * Return: 0; -EINVAL: too many of them; -errno. */
int mfd_rights_send(int channel, const void *data, size_t size, const int *fds, size_t n_fds,
                    int flags)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    union rights control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

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
    return sendmsg(channel, &message, flags | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

static size_t copy_fds(struct msghdr *message, int *ret_fds)
{
    const struct cmsghdr *rights = CMSG_FIRSTHDR(message);
    size_t size;

    if (rights == NULL || rights->cmsg_level != SOL_SOCKET || rights->cmsg_type != SCM_RIGHTS)
        return 0;
    size = rights->cmsg_len - CMSG_LEN(0);
    memcpy(ret_fds, CMSG_DATA(rights), size);
    return size / sizeof(int);
}

/* mfd_rights_receive - receive a packet
 * @ret_fds: what came along, close-on-exec, owned by the caller
 * @n_fds: on call: the room there, at most MFD_CHANNEL_FDS; on success: how many came
 * Return: its bytes, 0 at the end of the channel; -EMSGSIZE: it was longer, or had more files, than there is
 * room for; -EMFILE: there was no number for a file; -errno. A packet that was cut is lost; data holds the
 * beginning of it. */
ssize_t mfd_rights_receive(int channel, void *data, size_t size, int *ret_fds, size_t *n_fds,
                           int flags)
{
    struct iovec part = {.iov_base = data, .iov_len = size};
    union rights control;
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = CMSG_LEN(*n_fds * sizeof(int)), /* CMSG_SPACE may have room for another */
    };
    int fds[MFD_CHANNEL_FDS];
    size_t n_received;
    ssize_t n;

    if (*n_fds > MFD_CHANNEL_FDS)
        return -EINVAL;
    n = recvmsg(channel, &message, flags | MSG_CMSG_CLOEXEC);
    if (n < 0)
        return -errno;
    n_received = copy_fds(&message, fds);
    if ((message.msg_flags & (MSG_TRUNC | MSG_CTRUNC)) != 0) {
        const bool lacks_number = (message.msg_flags & MSG_TRUNC) == 0 && n_received < *n_fds;

        for (size_t i = 0; i < n_received; i++)
            (void)close(fds[i]);
        return lacks_number ? -EMFILE : -EMSGSIZE;
    }
    memcpy(ret_fds, fds, n_received * sizeof(int));
    *n_fds = n_received;
    return n;
}
