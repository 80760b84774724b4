/* Messages in the memory of a program, by both layouts: this process stands for the program. */
#include <netinet/in.h>
#include <stddef.h>
#include <sys/uio.h>

#include "check.h"

#define LOW_SIZE 65536

struct compat_iovec {
    uint32_t base;
    uint32_t size;
};

struct compat_message {
    uint32_t name;
    int32_t name_size;
    uint32_t iov;
    uint32_t n_iov;
    uint32_t control;
    uint32_t control_size;
    uint32_t flags;
    uint32_t length; /* of struct mmsghdr */
};

/* What a 32-bit program has lies where 32 bits can name it. */
static struct {
    struct compat_message messages[2];
    struct compat_iovec parts[2];
    uint8_t text[64];
    uint8_t control[256];
} *low;

static uint32_t at(const void *pointer)
{
    return (uint32_t)(uintptr_t)pointer;
}

static struct mfd_notification call_of(enum mfd_call_kind kind, bool compat)
{
    return (struct mfd_notification){.pid = getpid(), .call = {.kind = kind, .compat = compat}};
}

static void put_control(size_t *used, int level, int type, const void *content, uint32_t size)
{
    const uint32_t header[] = {12 + size, (uint32_t)level, (uint32_t)type};

    memcpy(low->control + *used, header, sizeof(header));
    memcpy(low->control + *used + sizeof(header), content, size);
    *used += (sizeof(header) + size + 3) & ~3u;
}

static void fill_low(void)
{
    size_t used = 0;

    memset(low, 0, sizeof(*low));
    memcpy(low->text, "onetwo", 6);
    low->parts[0] = (struct compat_iovec){at(low->text), 3};
    low->parts[1] = (struct compat_iovec){at(low->text + 3), 3};
    put_control(&used, IPPROTO_IP, IP_TOS, "\x20", 1);
    put_control(&used, IPPROTO_IP, IP_TTL, &(int){7}, sizeof(int));
    low->messages[1] = (struct compat_message){.iov = at(low->parts),
                                               .n_iov = 2,
                                               .control = at(low->control),
                                               .control_size = (uint32_t)used};
}

static void a_compat_message_is_widened(void)
{
    struct mfd_notification call = call_of(MFD_CALL_SENDMMSG, true);
    struct mfd_message message;
    struct msghdr copied;
    struct cmsghdr *one;

    fill_low();
    CHECK_EQ(mfd_message_at(&call, at(low->messages), 1), at(&low->messages[1]));
    NEED(mfd_message_read(&call, at(&low->messages[1]), &message) == 0);
    CHECK_EQ(message.name_size, 0);
    NEED(mfd_message_gather(&call, &message, &copied) == 0);
    CHECK_EQ(copied.msg_iov->iov_len, 6);
    CHECK(memcmp(copied.msg_iov->iov_base, "onetwo", 6) == 0);
    one = CMSG_FIRSTHDR(&copied);
    NEED(one != NULL);
    CHECK_EQ(one->cmsg_type, IP_TOS);
    CHECK_EQ(one->cmsg_len, CMSG_LEN(1));
    CHECK_EQ(*CMSG_DATA(one), 0x20);
    one = CMSG_NXTHDR(&copied, one);
    NEED(one != NULL);
    CHECK_EQ(one->cmsg_type, IP_TTL);
    CHECK_EQ(one->cmsg_len, CMSG_LEN(sizeof(int)));
    CHECK(CMSG_NXTHDR(&copied, one) == NULL);
    CHECK_EQ(mfd_message_set_length(&call, at(&low->messages[1]), 6), 0);
    CHECK_EQ(low->messages[1].length, 6);
}

static void bad_control_is_refused(void)
{
    static const uint32_t sizes[] = {0, 11, UINT32_MAX, 0x80000000u, 300};
    struct mfd_notification call = call_of(MFD_CALL_SENDMSG, true);
    struct mfd_message message;
    struct msghdr copied;

    for (size_t i = 0; i < MFD_COUNT(sizes); i++) {
        fill_low();
        memcpy(low->control, &sizes[i], sizeof(sizes[i]));
        NEED(mfd_message_read(&call, at(&low->messages[1]), &message) == 0);
        CHECK_EQ(mfd_message_gather(&call, &message, &copied), -EINVAL);
    }
    message.control_size = MFD_CONTROL_MAX + 1;
    CHECK_EQ(mfd_message_gather(&call, &message, &copied), -ENOBUFS);
    message.control_size = 0;
    message.n_iov = 0;
    CHECK_EQ(mfd_message_gather(&call, &message, &copied), 0);
    CHECK_EQ(copied.msg_controllen, 0);
}

/* As if it had been received: a time, which is narrower there, and a number. */
static size_t fill_received(struct msghdr *filled, int64_t seconds)
{
    const int64_t time[2] = {seconds, 5};
    struct cmsghdr *one = CMSG_FIRSTHDR(filled);

    NEED(one != NULL);
    *one = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(time)), .cmsg_level = SOL_SOCKET, .cmsg_type = SO_TIMESTAMP};
    memcpy(CMSG_DATA(one), time, sizeof(time));
    one = (struct cmsghdr *)((uint8_t *)one + CMSG_SPACE(sizeof(time)));
    *one = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = IPPROTO_IP, .cmsg_type = IP_TTL};
    memcpy(CMSG_DATA(one), &(int){64}, sizeof(int));
    return CMSG_SPACE(sizeof(time)) + CMSG_SPACE(sizeof(int));
}

static void what_was_received_is_narrowed(void)
{
    static const struct {
        uint32_t room;
        uint32_t used;
        int flags;
    } rows[] = {
        {256, 36, 0}, {36, 36, 0}, {35, 35, MSG_CTRUNC}, {20, 20, MSG_CTRUNC}, {11, 0, MSG_CTRUNC}};
    struct mfd_notification call = call_of(MFD_CALL_RECVMSG, true);

    for (size_t i = 0; i < MFD_COUNT(rows); i++) {
        struct mfd_message message;
        struct msghdr filled;
        int32_t time[2];

        fill_low();
        low->messages[1].control_size = rows[i].room;
        memset(low->control, 0xee, sizeof(low->control));
        NEED(mfd_message_read(&call, at(&low->messages[1]), &message) == 0);
        NEED(mfd_message_room(&call, &message, &filled) == 0);
        CHECK_EQ(filled.msg_iov->iov_len, 6);
        memcpy(filled.msg_iov->iov_base, "ABCDEF", 6);
        filled.msg_controllen = fill_received(&filled, 1234567);
        filled.msg_flags = 0;
        CHECK_EQ(mfd_message_scatter(&call, &message, at(&low->messages[1]), &filled, 4), 0);
        CHECK(memcmp(low->text, "ABCDwo", 6) == 0);
        CHECK_EQ(low->messages[1].control_size, rows[i].used);
        CHECK_EQ(low->messages[1].flags, rows[i].flags);
        CHECK_EQ(low->control[rows[i].used], 0xee);
        if (rows[i].used < 20)
            continue;
        memcpy(time, low->control + 12, sizeof(time));
        CHECK_EQ(time[0], 1234567);
        CHECK_EQ(time[1], 5);
    }
}

static void too_much_is_refused(void)
{
    struct mfd_notification call = call_of(MFD_CALL_SENDTO, false);
    struct mfd_message message = {.iov = 8, .n_iov = MFD_DATAGRAM_MAX + 1};
    struct msghdr copied;

    CHECK_EQ(mfd_message_gather(&call, &message, &copied), -EMSGSIZE); /* nothing was read */
    message.n_iov = 1;
    CHECK_EQ(mfd_message_gather(&call, &message, &copied), -EFAULT);
    message.n_iov = 0;
    CHECK_EQ(mfd_message_gather(&call, &message, &copied), 0);
    call.call.kind = MFD_CALL_SENDMSG;
    CHECK_EQ(mfd_message_read(&call, 8, &message), -EFAULT);
}

int main(void)
{
    low = mmap(NULL, LOW_SIZE, PROT_READ | PROT_WRITE,
               MAP_PRIVATE | MAP_ANONYMOUS
#ifdef MAP_32BIT
                   | MAP_32BIT
#endif
               ,
               -1, 0);
    NEED(low != MAP_FAILED);
    too_much_is_refused();
    if ((uintptr_t)low >> 32 != 0) {
        check_skip("memory that 32 bits can name");
        return check_result();
    }
    a_compat_message_is_widened();
    bad_control_is_refused();
    what_was_received_is_narrowed();
    return check_result();
}
