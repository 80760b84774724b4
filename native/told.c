/* told.c - addresses told to a transparent service: the ones that it asked for
 *
 * Theory of operation: getpeername(2), and the source of a received datagram (receive.c), name the endpoint. In
 * a transparent service names.c knows what the program had asked for instead, and that is told, in the family
 * of the socket. What is not known is told by the kernel. Lengths and truncation are the kernel's
 * (net/socket.c, move_addr_to_user): as much as fits is written, and the full length is told.
 *
 * Limits: the tables below /proc/net, ss(8), and SO_PEERNAME tell the endpoint.
 * Source: getpeername(2), recvfrom(2). */
#include <sys/uio.h>

#include "meshfd.h"

/* mfd_told_translate - an address that the kernel gave becomes the one that the program asked for
 * @fd: the socket that it is a peer of
 * Return: whether it was another. */
bool mfd_told_translate(struct mfd_agent *agent, int fd, union mfd_sockaddr *sockaddr,
                        socklen_t *length)
{
    const int domain = sockaddr->any.sa_family; /* of what the kernel gives: the socket's own */
    const struct mfd_name *name;
    struct mfd_address given;

    if (mfd_address_parse(sockaddr, *length, &given) < 0)
        return false;
    name = mfd_names_by_given(&agent->names, mfd_socket_cookie(fd), &given);
    return name != NULL && mfd_address_format(&name->asked, domain, sockaddr, length) == 0;
}

/* mfd_told_write - an address to the target, as move_addr_to_user() does it
 * @length_at: where its length is read and written
 * Return: 0; -EFAULT; -EINVAL: the length there is negative. */
int mfd_told_write(pid_t pid, uint64_t address, uint64_t length_at,
                   const union mfd_sockaddr *sockaddr, socklen_t length)
{
    uint32_t room;
    int error = mfd_target_read(pid, length_at, &room, sizeof(room));
    struct iovec local[] = {
        {.iov_base = (void *)(uintptr_t)sockaddr->bytes},
        {.iov_base = &length, .iov_len = sizeof(length)},
    };
    struct iovec remote[] = {
        {.iov_base = (void *)(uintptr_t)address},
        {.iov_base = (void *)(uintptr_t)length_at, .iov_len = sizeof(length)},
    };

    if (error < 0)
        return error;
    if ((int32_t)room < 0)
        return -EINVAL;
    local[0].iov_len = remote[0].iov_len = room < length ? room : length;
    return mfd_target_write_both(pid, remote, local);
}

/* mfd_getpeername_handle - answer getpeername() */
void mfd_getpeername_handle(struct mfd_agent *agent, const struct mfd_notification *call)
{
    union mfd_sockaddr sockaddr = {0};
    socklen_t length = sizeof(sockaddr);
    MFD_RELEASE int fd = -1;
    int error =
        call->pid == 0 ? -ENOENT : mfd_target_open_fd(call->pid, (int)call->call.args[0], &fd);
    bool is_other = error == 0 && getpeername(fd, &sockaddr.any, &length) == 0 &&
                    mfd_told_translate(agent, fd, &sockaddr, &length);

    if (error < 0)
        mfd_account_unseen(agent, call, error, NULL);
    mfd_release_at(&fd); /* before the answer */
    if (!is_other)
        mfd_answer_continue(agent, call);
    else if (mfd_notify_is_alive(call))
        mfd_answer(
            agent, call,
            mfd_told_write(call->pid, call->call.args[1], call->call.args[2], &sockaddr, length));
}
