/* message.c - a message in the target's memory
 *
 * Theory of operation: struct msghdr, its iovecs and its control messages are read from the target as its ABI
 * lays them out (64 or 32 bit), copied into one fixed scratch area, and used from there; what was received goes
 * back the same way. sendto() and recvfrom() are messages with one iovec. Errors are those of the kernel's own
 * reading (net/socket.c, copy_msghdr_from_user; lib/iov_iter.c).
 *
 * Control messages of the 32-bit ABI have a shorter header and alignment; those are rewritten, and so are the
 * three old timestamps, whose content differs (net/compat.c, put_cmsg_compat). Everything else that datagrams
 * carry has one layout.
 *
 * Limits: MFD_DATAGRAM_MAX bytes of payload, which is all that UDP has; MFD_CONTROL_MAX of control messages, in
 * which IP's whole set has room several times; UIO_MAXIOV iovecs, as everywhere.
 * Source: recvmsg(2), cmsg(3), process_vm_readv(2). */
#include <limits.h>
#include <netinet/udp.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "meshfd.h"

#define IOV_MAX_ 1024 /* linux/uio.h: UIO_MAXIOV */
#define ROOM (MFD_DATAGRAM_MAX + 1)
#define RW_MAX                                                                                     \
    0x7ffff000UL /* linux/fs.h: MAX_RW_COUNT, what any call moves at most (pages of 4 KiB) */
#define COMPAT_ALIGN(size) (((size) + 3) & ~(size_t)3)

/* struct msghdr and what surrounds it, in 32 bits. Source: net/compat.c. */
struct compat_message {
    uint32_t name;
    int32_t name_size;
    uint32_t iov;
    uint32_t n_iov;
    uint32_t control;
    uint32_t control_size;
    uint32_t flags;
};

struct compat_iovec {
    uint32_t base;
    uint32_t size;
};

struct compat_cmsg {
    uint32_t size;
    int32_t level;
    int32_t type;
};

static struct { /* one thread, one message at a time */
    struct iovec remote[IOV_MAX_];
    struct iovec local;
    uint8_t payload[ROOM];
    _Alignas(struct cmsghdr) uint8_t control[MFD_CONTROL_MAX];
    uint8_t compat_control[MFD_CONTROL_MAX];
} scratch;

/* mfd_message_at - where the message of this index is in the array of a sendmmsg() or recvmmsg() */
uint64_t mfd_message_at(const struct mfd_notification *call, uint64_t messages, uint32_t index)
{
    size_t size = call->call.compat ? sizeof(struct compat_message) + sizeof(uint32_t)
                                    : sizeof(struct mmsghdr);

    return messages + (uint64_t)index * size;
}

/* mfd_message_set_length - mmsghdr.msg_len of the message at this address
 * Return: 0; -EFAULT. */
int mfd_message_set_length(const struct mfd_notification *call, uint64_t at, uint32_t length)
{
    size_t offset =
        call->call.compat ? sizeof(struct compat_message) : offsetof(struct mmsghdr, msg_len);

    return mfd_target_write(call->pid, at + offset, &length, sizeof(length));
}

/* mfd_message_read - the msghdr at this address
 * Return: 0; -EFAULT; -EINVAL: a negative length. */
int mfd_message_read(const struct mfd_notification *call, uint64_t at, struct mfd_message *ret)
{
    struct compat_message compat;
    struct msghdr native;
    int error;

    if (call->call.compat) {
        error = mfd_target_read(call->pid, at, &compat, sizeof(compat));
        *ret = (struct mfd_message){
            .name = compat.name,
            .name_size = (uint32_t)compat.name_size,
            .iov = compat.iov,
            .n_iov = compat.n_iov,
            .control = compat.control,
            .control_size = compat.control_size,
        };
    } else {
        error = mfd_target_read(call->pid, at, &native, sizeof(native));
        *ret = (struct mfd_message){
            .name = (uintptr_t)native.msg_name,
            .name_size = native.msg_namelen,
            .iov = (uintptr_t)native.msg_iov,
            .n_iov = native.msg_iovlen,
            .control = (uintptr_t)native.msg_control,
            .control_size = native.msg_controllen,
        };
    }
    if (error < 0)
        return error;
    if (ret->name == 0)
        ret->name_size = 0;
    if (ret->name_size > INT32_MAX)
        return -EINVAL;
    if (ret->name_size > MFD_SOCKADDR_MAX)
        ret->name_size = MFD_SOCKADDR_MAX;
    return 0;
}

/* mfd_message_name - the address of a message to be sent
 * Return: 0; -EFAULT. */
int mfd_message_name(const struct mfd_notification *call, const struct mfd_message *message,
                     union mfd_sockaddr *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (message->name_size > sizeof(ret->bytes))
        return -EINVAL;
    return mfd_target_read(call->pid, message->name, ret->bytes, message->name_size);
}

/* May a program have memory there (access_ok())? Whether it has is seen when that is used. Where exactly its half
 * ends differs, and is not looked at. */
static bool is_user_range(uint64_t base, uint64_t size)
{
    const uint64_t end = base + size;

    return end >= base && (int64_t)base >= 0 && (int64_t)end >= 0;
}

/* The array of iovecs, into scratch. Return: 0; -EFAULT; -EMSGSIZE. */
static int copy_iovecs(const struct mfd_notification *call, const struct mfd_message *message)
{
    struct compat_iovec compat[IOV_MAX_];
    int error;

    if (message->n_iov > IOV_MAX_)
        return -EMSGSIZE;
    if (!call->call.compat)
        return mfd_target_read(call->pid, message->iov, scratch.remote,
                               message->n_iov * sizeof(scratch.remote[0]));
    error = mfd_target_read(call->pid, message->iov, compat, message->n_iov * sizeof(compat[0]));
    for (uint64_t i = 0; i < message->n_iov && error == 0; i++)
        scratch.remote[i] = (struct iovec){.iov_base = (void *)(uintptr_t)compat[i].base,
                                           .iov_len = compat[i].size};
    return error;
}

static int check_iovecs(const struct mfd_notification *call, const struct mfd_message *message)
{
    for (uint64_t i = 0; i < message->n_iov; i++)
        if (scratch.remote[i].iov_len > (size_t)(call->call.compat ? INT32_MAX : SSIZE_MAX))
            return -EINVAL;
    if (message->n_iov == 1 && scratch.remote[0].iov_len > RW_MAX)
        scratch.remote[0].iov_len = RW_MAX; /* import_ubuf(): cut off before it is looked at */
    for (uint64_t i = 0; i < message->n_iov; i++)
        if (!is_user_range((uintptr_t)scratch.remote[i].iov_base, scratch.remote[i].iov_len))
            return -EFAULT;
    return 0;
}

/* The iovecs, into scratch. A message without an array (sendto(), recvfrom()) is its own only one.
 * @ret_size: of all, cut off at ROOM, which is more than UDP can send
 * Return: 0; -EFAULT; -EINVAL; -EMSGSIZE: too many iovecs. */
static int read_iovecs(const struct mfd_notification *call, const struct mfd_message *message,
                       size_t *ret_size)
{
    const uint64_t length = message->n_iov < RW_MAX ? message->n_iov : RW_MAX;
    size_t size = 0;
    int error;

    if (call->call.kind == MFD_CALL_SENDTO || call->call.kind == MFD_CALL_RECVFROM) {
        if (!is_user_range(message->iov, length))
            return -EFAULT;
        *ret_size = length < ROOM ? length : ROOM;
        scratch.remote[0] =
            (struct iovec){.iov_base = (void *)(uintptr_t)message->iov, .iov_len = *ret_size};
        return 0;
    }
    error = copy_iovecs(call, message);
    if (error == 0)
        error = check_iovecs(call, message);
    for (uint64_t i = 0; i < message->n_iov && error == 0; i++) {
        if (scratch.remote[i].iov_len > ROOM - size)
            scratch.remote[i].iov_len = ROOM - size;
        size += scratch.remote[i].iov_len;
    }
    *ret_size = size;
    return error;
}

static unsigned long n_iovecs(const struct mfd_notification *call,
                              const struct mfd_message *message)
{
    bool is_own = call->call.kind == MFD_CALL_SENDTO || call->call.kind == MFD_CALL_RECVFROM;

    return is_own ? 1 : message->n_iov;
}

/* Control messages of the 32-bit ABI into scratch.control (net/compat.c, cmsghdr_from_user_compat_to_kern).
 * Return: the size there; -EINVAL; -ENOBUFS. */
static int widen_control(size_t size)
{
    size_t from = 0;
    size_t to = 0;

    if (size < sizeof(struct compat_cmsg))
        return -EINVAL;
    while (from + sizeof(struct compat_cmsg) <= size) {
        struct compat_cmsg compat;
        struct cmsghdr wide;
        size_t length;

        memcpy(&compat, scratch.compat_control + from, sizeof(compat));
        if (compat.size < sizeof(compat) || compat.size > size - from)
            return -EINVAL;
        length = compat.size - sizeof(compat);
        if (to + CMSG_SPACE(length) > sizeof(scratch.control))
            return -ENOBUFS;
        wide = (struct cmsghdr){
            .cmsg_len = CMSG_LEN(length), .cmsg_level = compat.level, .cmsg_type = compat.type};
        memset(scratch.control + to, 0, CMSG_SPACE(length));
        memcpy(scratch.control + to, &wide, sizeof(wide));
        memcpy(scratch.control + to + CMSG_LEN(0), scratch.compat_control + from + sizeof(compat),
               length);
        to += CMSG_SPACE(length);
        from += COMPAT_ALIGN(compat.size);
    }
    return (int)to;
}

/* May everybody send this control message? For the others the kernel wants a privilege, and looks at the
 * agent, who sends. Source: net/core/sock.c (__sock_cmsg_send), net/ipv4/ip_sockglue.c (ip_cmsg_send),
 * net/ipv6/datagram.c (ip6_datagram_send_ctl). */
static bool is_plain(const struct cmsghdr *one)
{
    static const struct {
        int level;
        int type;
    } plain[] = {
        {SOL_SOCKET, SO_TIMESTAMPING}, {SOL_SOCKET, SO_TXTIME},       {SOL_SOCKET, SCM_RIGHTS},
        {SOL_SOCKET, SCM_CREDENTIALS}, {IPPROTO_IP, IP_TTL},          {IPPROTO_IP, IP_TOS},
        {IPPROTO_IP, IP_PKTINFO},      {IPPROTO_IPV6, IPV6_PKTINFO},  {IPPROTO_IPV6, IPV6_HOPLIMIT},
        {IPPROTO_IPV6, IPV6_TCLASS},   {IPPROTO_IPV6, IPV6_DONTFRAG}, {IPPROTO_UDP, UDP_SEGMENT},
    };

    for (size_t i = 0; i < MFD_COUNT(plain); i++)
        if (one->cmsg_level == plain[i].level && one->cmsg_type == plain[i].type)
            return true;
    return false;
}

/* The agent lends nobody its rights. What is malformed is refused first, as the kernel does (CMSG_OK).
 * Return: the size; -EINVAL; -EPERM. */
static int check_control(const struct mfd_notification *call, int size)
{
    struct msghdr message = {.msg_control = scratch.control, .msg_controllen = (size_t)size};

    for (struct cmsghdr *one = size == 0 ? NULL : CMSG_FIRSTHDR(&message); one != NULL;
         one = CMSG_NXTHDR(&message, one)) {
        size_t offset = (size_t)((uint8_t *)one - scratch.control);

        if (one->cmsg_len < sizeof(*one) || one->cmsg_len > (size_t)size - offset)
            return -EINVAL;
        if (!is_plain(one) && !mfd_target_is_capable(call->pid))
            return -EPERM;
    }
    return size;
}

/* Return: bytes in scratch.control; -EFAULT; -EINVAL; -ENOBUFS; -EPERM. */
static int read_control(const struct mfd_notification *call, const struct mfd_message *message)
{
    uint8_t *to = call->call.compat ? scratch.compat_control : scratch.control;
    int error;

    if (message->control_size == 0)
        return 0;
    if (message->control_size > MFD_CONTROL_MAX)
        return -ENOBUFS;
    if (message->control == 0)
        return call->call.compat ? -EINVAL : -EFAULT; /* CMSG_COMPAT_FIRSTHDR(); copy_from_user() */
    error = mfd_target_read(call->pid, message->control, to, message->control_size);
    if (error < 0)
        return error;
    error = call->call.compat ? widen_control(message->control_size) : (int)message->control_size;
    return error < 0 ? error : check_control(call, error);
}

/* mfd_message_gather - copy payload and control messages of a message to be sent
 * @ret: points to the copies, until the next call; its name is left empty
 * Return: 0; -EFAULT; -EINVAL; -ENOBUFS; -EMSGSIZE: more than UDP can send. */
int mfd_message_gather(const struct mfd_notification *call, const struct mfd_message *message,
                       struct msghdr *ret)
{
    size_t size;
    ssize_t n = 0;
    int error = read_iovecs(call, message, &size);
    int control = error < 0 ? error : read_control(call, message);

    if (control < 0)
        return control;
    if (size > MFD_DATAGRAM_MAX)
        return -EMSGSIZE;
    scratch.local = (struct iovec){.iov_base = scratch.payload, .iov_len = size};
    if (size > 0)
        n = process_vm_readv(call->pid, &scratch.local, 1, scratch.remote, n_iovecs(call, message),
                             0);
    if (n < 0)
        return -errno;
    if ((size_t)n != size)
        return -EFAULT;
    *ret = (struct msghdr){
        .msg_iov = &scratch.local,
        .msg_iovlen = 1,
        .msg_control = control == 0 ? NULL : scratch.control,
        .msg_controllen = (size_t)control,
    };
    return 0;
}

/* mfd_message_room - room to receive into, as large as the target's, but no larger than a datagram
 * @ret: points to it, until the next call; its name is left empty
 * Return: 0; -EFAULT; -EINVAL; -EMSGSIZE. */
int mfd_message_room(const struct mfd_notification *call, const struct mfd_message *message,
                     struct msghdr *ret)
{
    size_t size;
    size_t control = message->control == 0 ? 0 : message->control_size;
    int error = read_iovecs(call, message, &size);

    if (error < 0)
        return error;
    /* a 32-bit program's room is measured when it is known what has to go in */
    if (control > MFD_CONTROL_MAX || (call->call.compat && control > 0))
        control = MFD_CONTROL_MAX;
    scratch.local = (struct iovec){.iov_base = scratch.payload, .iov_len = size};
    *ret = (struct msghdr){
        .msg_iov = &scratch.local,
        .msg_iovlen = 1,
        .msg_control = control == 0 ? NULL : scratch.control,
        .msg_controllen = control,
    };
    return 0;
}

/* Old timestamps are two or, SO_TIMESTAMPING, six native longs. Return: the size in 32 bits. */
static size_t narrow_content(const struct cmsghdr *wide, const uint8_t *content, size_t size,
                             uint8_t *ret_content)
{
    bool is_time = wide->cmsg_level == SOL_SOCKET &&
                   (wide->cmsg_type == SO_TIMESTAMP || wide->cmsg_type == SO_TIMESTAMPNS ||
                    wide->cmsg_type == SO_TIMESTAMPING);

    if (!is_time) {
        memcpy(ret_content, content, size);
        return size;
    }
    for (size_t i = 0; i < size / sizeof(int64_t); i++) {
        int64_t number;
        int32_t narrow;

        memcpy(&number, content + i * sizeof(number), sizeof(number));
        narrow = (int32_t)number;
        memcpy(ret_content + i * sizeof(narrow), &narrow, sizeof(narrow));
    }
    return size / 2;
}

/* What was received, from scratch.control to scratch.compat_control.
 * @room: the target's; @flags: MSG_CTRUNC is set when it does not suffice
 * Return: the size there. */
static size_t narrow_control(struct msghdr *filled, size_t room, int *flags)
{
    size_t to = 0;

    for (struct cmsghdr *wide = CMSG_FIRSTHDR(filled); wide != NULL;
         wide = CMSG_NXTHDR(filled, wide)) {
        size_t size = wide->cmsg_len - CMSG_LEN(0);
        uint8_t content[MFD_CONTROL_MAX] = {0};
        struct compat_cmsg compat = {.level = wide->cmsg_level, .type = wide->cmsg_type};

        size = narrow_content(wide, CMSG_DATA(wide), size, content);
        compat.size = (uint32_t)(sizeof(compat) + size);
        if (room - to < sizeof(compat)) {
            *flags |= MSG_CTRUNC;
            break;
        }
        if (compat.size > room - to) {
            *flags |= MSG_CTRUNC;
            compat.size = (uint32_t)(room - to);
            size = compat.size - sizeof(compat);
        }
        memcpy(scratch.compat_control + to, &compat, sizeof(compat));
        memcpy(scratch.compat_control + to + sizeof(compat), content, size);
        to += COMPAT_ALIGN(compat.size);
        if (to > room)
            to = room;
    }
    return to;
}

static int write_back(const struct mfd_notification *call, uint64_t at, uint64_t control_size,
                      int flags)
{
    struct compat_message compat = {.control_size = (uint32_t)control_size,
                                    .flags = (uint32_t)flags};
    struct msghdr native = {.msg_controllen = control_size, .msg_flags = flags};

    if (call->call.compat)
        return mfd_target_write(call->pid, at + offsetof(struct compat_message, control_size),
                                &compat.control_size, 2 * sizeof(uint32_t));
    return mfd_target_write(call->pid, at + offsetof(struct msghdr, msg_controllen),
                            &native.msg_controllen,
                            offsetof(struct msghdr, msg_flags) + sizeof(native.msg_flags) -
                                offsetof(struct msghdr, msg_controllen));
}

/* mfd_message_scatter - what was received into mfd_message_room() goes to the target
 * @at: its msghdr, whose control length and flags are set; 0: it has none (recvfrom())
 * @size: of the payload
 * Return: 0; -EFAULT. */
int mfd_message_scatter(const struct mfd_notification *call, const struct mfd_message *message,
                        uint64_t at, struct msghdr *filled, size_t size)
{
    const uint8_t *control = scratch.control;
    size_t control_size = filled->msg_controllen;
    int flags = filled->msg_flags;
    int error;

    if (size > scratch.local.iov_len)
        size = scratch.local.iov_len; /* MSG_TRUNC: there was more */
    scratch.local.iov_len = size;
    if (size > 0 && process_vm_writev(call->pid, &scratch.local, 1, scratch.remote,
                                      n_iovecs(call, message), 0) != (ssize_t)size)
        return -EFAULT;
    if (at == 0)
        return 0;
    if (call->call.compat) {
        control = scratch.compat_control;
        control_size = narrow_control(
            filled, message->control == 0 ? 0 : (size_t)message->control_size, &flags);
    }
    error = message->control == 0
                ? 0
                : mfd_target_write(call->pid, message->control, control, control_size);
    return error < 0 ? error : write_back(call, at, control_size, flags);
}
