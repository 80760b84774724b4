/* rights.c - a packet on a unix socket, with a file or without
 *
 * Source: unix(7) SCM_RIGHTS, cmsg(3). */
#include <string.h>
#include <sys/socket.h>

#include "meshfd.h"

union rights { /* room for one fd */
    struct cmsghdr align;
    uint8_t room[CMSG_SPACE(sizeof(int))];
};

/* mfd_rights_send - send a packet
 * @fd: to go along; stays the caller's; -1: none
 * Return: 0 or -errno. */
int mfd_rights_send(int channel, const void *data, size_t size, int fd, int flags)
{
    struct iovec part = {.iov_base = (void *)(uintptr_t)data, .iov_len = size};
    union rights control = {0};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};

    if (fd >= 0) {
        struct cmsghdr *rights;

        message.msg_control = &control;
        message.msg_controllen = sizeof(control);
        rights = CMSG_FIRSTHDR(&message);
        rights->cmsg_level = SOL_SOCKET;
        rights->cmsg_type = SCM_RIGHTS;
        rights->cmsg_len = CMSG_LEN(sizeof(int));
        memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    }
    return sendmsg(channel, &message, flags | MSG_NOSIGNAL) < 0 ? -errno : 0;
}

/* mfd_rights_receive - receive a packet of this size
 * @ret_fd: what came along, close-on-exec, owned by the caller; -1: nothing, or there was no number for it
 * Return: was there one? */
bool mfd_rights_receive(int channel, void *data, size_t size, int flags, int *ret_fd)
{
    struct iovec part = {.iov_base = data, .iov_len = size};
    union rights control = {0};
    struct msghdr message = {
        .msg_iov = &part,
        .msg_iovlen = 1,
        .msg_control = &control,
        .msg_controllen = sizeof(control),
    };
    struct cmsghdr *rights;

    *ret_fd = -1;
    if (recvmsg(channel, &message, flags | MSG_CMSG_CLOEXEC) != (ssize_t)size)
        return false;
    rights = CMSG_FIRSTHDR(&message);
    if (rights != NULL && rights->cmsg_type == SCM_RIGHTS)
        memcpy(ret_fd, CMSG_DATA(rights), sizeof(*ret_fd));
    return true;
}
