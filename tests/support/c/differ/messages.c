/* messages.c - operations that send to an address, and receive with one
 *
 *   sendto SLOT N TARGET [FLAG...]         missendto SLOT N TARGET HOW (as misconnect, connects.c)
 *   sendmsg SLOT N TARGET [tos|ttl] [FLAG...]
 *   sendmmsg SLOT N TARGET TARGET [TARGET]
 *   recvfrom SLOT N ROOM [FLAG...]         recvmsg SLOT N ROOM [FLAG...]
 *   recvmmsg SLOT N COUNT [FLAG...]
 *   wait SLOT recv|recvfrom|recvmsg|recvmmsg|accept
 *
 * TARGET may be "-": no address. ROOM is what there is for an address, "null" no pointer. Nothing waits, but
 * for "wait", which SO_RCVTIMEO ends, or a signal. FLAGS: those of `asked`; "nocontrol", first: no room for it.
 * Source: recvmsg(2), ip(7), ipv6(7), cmsg(3). */
#include "differ.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/errqueue.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#define CONTROL_MAX 512
#define MESSAGES_MAX 3
#define MARK 0xaa

struct flag_name {
    const char *name;
    int flag;
};

static const struct flag_name asked[] = {
    {"peek", MSG_PEEK},         {"trunc", MSG_TRUNC},         {"errqueue", MSG_ERRQUEUE},
    {"oob", MSG_OOB},           {"more", MSG_MORE},           {"confirm", MSG_CONFIRM},
    {"fastopen", MSG_FASTOPEN}, {"dontroute", MSG_DONTROUTE}, {NULL, 0},
};
static const struct flag_name told[] = {
    {"eor", MSG_EOR}, {"trunc", MSG_TRUNC},       {"ctrunc", MSG_CTRUNC},
    {"oob", MSG_OOB}, {"errqueue", MSG_ERRQUEUE}, {NULL, 0},
};

static int flags_of(char **words, int from, int n_words)
{
    int flags = MSG_DONTWAIT | MSG_NOSIGNAL;

    for (int i = from; i < n_words; i++)
        for (const struct flag_name *one = asked; one->name != NULL; one++)
            if (strcmp(words[i], one->name) == 0)
                flags |= one->flag;
    return flags;
}

/* --- sending ------------------------------------------------------------------------------------------------ */

/* After TCP_FASTOPEN_CONNECT and a failure MSG_FASTOPEN differs (README, limits). */
static bool is_fast_twice(int fd, int flags)
{
    int fast = 0;
    socklen_t size = sizeof(fast);

    return (flags & MSG_FASTOPEN) != 0 &&
           getsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &fast, &size) == 0 && fast != 0;
}

/* Return: whether it may be sent; "-" is no address. */
static bool address_for(int fd, const char *word, int flags, struct target *ret)
{
    memset(ret, 0, sizeof(*ret));
    if (is_fast_twice(fd, flags)) {
        tell(" fast already");
        return false;
    }
    if (is_foreign(fd)) {
        tell(" from a foreign address");
        return false;
    }
    if (strcmp(word, "-") == 0 || target_parse(word, fd, ret))
        return true;
    tell(" no such target");
    return false;
}

static void do_sendto(char **words, int n_words)
{
    char data[DATA_MAX];
    size_t n = count_of(words[2]);
    int fd = slot_fd(words[1]);
    int flags = flags_of(words, 4, n_words);
    struct target target;

    fill(data, n);
    if (!address_for(fd, words[3], flags, &target))
        return;
    if ((flags & MSG_FASTOPEN) != 0)
        note_attempt(fd, target.hole);
    tell_result((int)sendto(fd, data, n, flags,
                            target.length == 0 ? NULL : (struct sockaddr *)&target.storage,
                            target.length));
}

static void do_missendto(char **words, int n_words)
{
    char data[DATA_MAX];
    size_t n = count_of(words[2]);
    int fd = slot_fd(words[1]);
    const struct sockaddr_storage *address;
    struct target target;

    (void)n_words;
    fill(data, n);
    if (!address_for(fd, words[3], 0, &target))
        return;
    address = mistake(&target, words[4]);
    tell_result((int)sendto(fd, data, n, MSG_DONTWAIT | MSG_NOSIGNAL, (struct sockaddr *)address,
                            target.length));
}

/* A control message of one int: the kernel has more kinds, but these are for everybody. */
static size_t write_control(char *control, int fd, bool ttl)
{
    int family = -1;
    socklen_t size = sizeof(family);
    struct cmsghdr *header = (struct cmsghdr *)control;
    int value = ttl ? 9 : 16;

    getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &family, &size);
    header->cmsg_len = CMSG_LEN(sizeof(value));
    header->cmsg_level = family == AF_INET6 ? IPPROTO_IPV6 : IPPROTO_IP;
    if (family == AF_INET6)
        header->cmsg_type = ttl ? IPV6_HOPLIMIT : IPV6_TCLASS;
    else
        header->cmsg_type = ttl ? IP_TTL : IP_TOS;
    memcpy(CMSG_DATA(header), &value, sizeof(value));
    return CMSG_SPACE(sizeof(value));
}

struct letter { /* one message, in two parts */
    char data[DATA_MAX];
    struct iovec parts[2];
    struct target target;
    _Alignas(struct cmsghdr) char control[CONTROL_MAX];
};

static void write_letter(struct letter *letter, size_t n, struct msghdr *ret)
{
    fill(letter->data, n);
    letter->parts[0] = (struct iovec){.iov_base = letter->data, .iov_len = n / 2};
    letter->parts[1] = (struct iovec){.iov_base = letter->data + n / 2, .iov_len = n - n / 2};
    *ret = (struct msghdr){.msg_iov = letter->parts, .msg_iovlen = 2};
    if (letter->target.length > 0) {
        ret->msg_name = &letter->target.storage;
        ret->msg_namelen = letter->target.length;
    }
}

static void do_sendmsg(char **words, int n_words)
{
    struct letter letter = {0};
    struct msghdr message;
    int fd = slot_fd(words[1]);
    int flags = flags_of(words, 4, n_words);

    if (!address_for(fd, words[3], flags, &letter.target))
        return;
    write_letter(&letter, count_of(words[2]), &message);
    if (n_words > 4 && (strcmp(words[4], "tos") == 0 || strcmp(words[4], "ttl") == 0)) {
        message.msg_control = letter.control;
        message.msg_controllen = write_control(letter.control, fd, words[4][1] == 't');
    }
    tell_result((int)sendmsg(fd, &message, flags));
}

static void do_sendmmsg(char **words, int n_words)
{
    struct letter letters[MESSAGES_MAX] = {0};
    struct mmsghdr messages[MESSAGES_MAX] = {0};
    int fd = slot_fd(words[1]);
    unsigned n = 0;
    int sent;

    for (int i = 3; i < n_words && n < MESSAGES_MAX; i++, n++) {
        if (!address_for(fd, words[i], 0, &letters[n].target))
            return;
        write_letter(&letters[n], count_of(words[2]), &messages[n].msg_hdr);
    }
    sent = sendmmsg(fd, messages, n, MSG_DONTWAIT | MSG_NOSIGNAL);
    tell_result(sent);
    for (int i = 0; i < sent; i++)
        tell(" %u", messages[i].msg_len);
}

/* --- receiving ---------------------------------------------------------------------------------------------- */

union name { /* room for an address, marked so that what was written shows */
    struct sockaddr_storage storage;
    unsigned char bytes[sizeof(struct sockaddr_storage)];
};

static void tell_name(const union name *name, socklen_t length, int fd)
{
    size_t written = sizeof(*name);

    while (written > 0 && name->bytes[written - 1] == MARK)
        written--;
    if (length == 0 && written == 0)
        return;
    tell(" from length %u ", length);
    if (written >= length && length >= sizeof(struct sockaddr_in))
        say_address(&name->storage, length, fd);
    else
        tell("%s", written <= length ? "short" : "too much");
}

static void do_recvfrom(char **words, int n_words)
{
    char data[DATA_MAX] = {0};
    union name name;
    bool null = strcmp(words[3], "null") == 0;
    socklen_t length = null ? sizeof(name) : (socklen_t)atoi(words[3]);
    int fd = slot_fd(words[1]);
    ssize_t n;

    memset(&name, MARK, sizeof(name));
    n = recvfrom(fd, data, count_of(words[2]), flags_of(words, 4, n_words),
                 null ? NULL : (struct sockaddr *)&name.storage, &length);
    tell_data(n, data);
    if (n >= 0 && !null)
        tell_name(&name, length, fd);
}

static void tell_error(const struct cmsghdr *header, int fd)
{
    struct sock_extended_err error;
    struct sockaddr_storage offender = {0};
    size_t size = header->cmsg_len - CMSG_LEN(sizeof(error));

    memcpy(&error, CMSG_DATA(header), sizeof(error));
    memcpy(&offender, CMSG_DATA(header) + sizeof(error),
           size < sizeof(offender) ? size : sizeof(offender));
    tell(" %s origin %d type %d code %d by ", error_name((int)error.ee_errno), error.ee_origin,
         error.ee_type, error.ee_code);
    say_address(&offender, (socklen_t)size, fd);
}

static void tell_control(const struct cmsghdr *header, int fd)
{
    struct in_pktinfo info;
    struct sockaddr_storage address = {0};
    size_t size = header->cmsg_len - CMSG_LEN(0);
    int value;

    tell(" [%d/%d size %zu", header->cmsg_level, header->cmsg_type, size);
    if ((header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_RECVERR) ||
        (header->cmsg_level == IPPROTO_IPV6 && header->cmsg_type == IPV6_RECVERR)) {
        tell_error(header, fd);
    } else if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_PKTINFO) {
        memcpy(&info, CMSG_DATA(header), sizeof(info));
        tell(" device %d own %#x to %#x", info.ipi_ifindex, ntohl(info.ipi_spec_dst.s_addr),
             ntohl(info.ipi_addr.s_addr));
    } else if (header->cmsg_level == IPPROTO_IP && header->cmsg_type == IP_ORIGDSTADDR) {
        memcpy(&address, CMSG_DATA(header), sizeof(struct sockaddr_in));
        tell(" ");
        say_address(&address, sizeof(struct sockaddr_in), -1);
    } else if (header->cmsg_level != SOL_SOCKET && size == sizeof(value)) {
        memcpy(&value, CMSG_DATA(header), sizeof(value));
        tell(" %d", value);
    } else if (header->cmsg_level != SOL_SOCKET && size == 1) {
        tell(" %d", *CMSG_DATA(header));
    }
    tell("]");
}

static void tell_message(struct msghdr *message, int fd)
{
    for (const struct flag_name *one = told; one->name != NULL; one++)
        if ((message->msg_flags & one->flag) != 0)
            tell(" %s", one->name);
    if (message->msg_name != NULL)
        tell_name(message->msg_name, message->msg_namelen, fd);
    for (struct cmsghdr *one = CMSG_FIRSTHDR(message); one != NULL; one = CMSG_NXTHDR(message, one))
        tell_control(one, fd);
}

struct letterbox {
    char data[DATA_MAX];
    struct iovec part;
    union name name;
    _Alignas(struct cmsghdr) char control[CONTROL_MAX];
};

static void open_letterbox(struct letterbox *box, size_t n, const char *room, struct msghdr *ret)
{
    memset(&box->name, MARK, sizeof(box->name));
    box->part = (struct iovec){.iov_base = box->data, .iov_len = n};
    *ret = (struct msghdr){.msg_iov = &box->part,
                           .msg_iovlen = 1,
                           .msg_control = box->control,
                           .msg_controllen = sizeof(box->control)};
    if (strcmp(room, "null") != 0) {
        ret->msg_name = &box->name;
        ret->msg_namelen = (socklen_t)atoi(room);
    }
}

static void do_recvmsg(char **words, int n_words)
{
    struct letterbox box = {0};
    struct msghdr message;
    int fd = slot_fd(words[1]);
    ssize_t n;

    open_letterbox(&box, count_of(words[2]), words[3], &message);
    if (n_words > 4 && strcmp(words[4], "nocontrol") == 0)
        message.msg_controllen = 0;
    n = recvmsg(fd, &message, flags_of(words, 4, n_words));
    tell_data(n, box.data);
    if (n >= 0)
        tell_message(&message, fd);
}

static void do_recvmmsg(char **words, int n_words)
{
    struct letterbox boxes[MESSAGES_MAX] = {0};
    struct mmsghdr messages[MESSAGES_MAX] = {0};
    int fd = slot_fd(words[1]);
    int wanted = atoi(words[3]);
    int n;

    for (int i = 0; i < MESSAGES_MAX; i++)
        open_letterbox(&boxes[i], count_of(words[2]), "128", &messages[i].msg_hdr);
    n = recvmmsg(fd, messages, wanted < MESSAGES_MAX ? (unsigned)wanted : MESSAGES_MAX,
                 flags_of(words, 4, n_words), NULL);
    tell_result(n);
    for (int i = 0; i < n; i++) {
        tell(" (");
        tell_data((ssize_t)messages[i].msg_len, boxes[i].data);
        tell_message(&messages[i].msg_hdr, fd);
        tell(")");
    }
}

/* --- receiving what never comes ------------------------------------------------------------------------------- */

static ssize_t wait_recv(int fd)
{
    char data[DATA_MAX];

    return recv(fd, data, sizeof(data), 0);
}

static ssize_t wait_recvfrom(int fd)
{
    char data[DATA_MAX];
    struct sockaddr_storage from;
    socklen_t length = sizeof(from);

    return recvfrom(fd, data, sizeof(data), 0, (struct sockaddr *)&from, &length);
}

static ssize_t wait_recvmsg(int fd)
{
    struct letterbox box = {0};
    struct msghdr message;

    open_letterbox(&box, sizeof(box.data), "128", &message);
    return recvmsg(fd, &message, 0);
}

static ssize_t wait_recvmmsg(int fd)
{
    struct letterbox box = {0};
    struct mmsghdr message = {0};

    open_letterbox(&box, sizeof(box.data), "128", &message.msg_hdr);
    return recvmmsg(fd, &message, 1, 0, NULL);
}

static ssize_t wait_accept(int fd)
{
    struct sockaddr_storage from;
    socklen_t length = sizeof(from);

    return accept(fd, (struct sockaddr *)&from, &length);
}

static const struct {
    const char *name;
    ssize_t (*call)(int fd);
} waits[] = {
    {"recv", wait_recv},         {"recvfrom", wait_recvfrom}, {"recvmsg", wait_recvmsg},
    {"recvmmsg", wait_recvmmsg}, {"accept", wait_accept},
};

static bool has_timeout(int fd)
{
    struct timeval timeout = {0};
    socklen_t size = sizeof(timeout);

    return getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, &size) == 0 &&
           (timeout.tv_sec != 0 || timeout.tv_usec != 0);
}

/* Would it? A call that does not is left alone, as a signal could come before meshfd hears of it. */
static bool would_wait(int fd, const char *how)
{
    int flags = fcntl(fd, F_GETFL);
    char data;

    if (flags < 0 || (flags & O_NONBLOCK) != 0)
        return false;
    if (strcmp(how, "accept") == 0)
        return is_listening(fd);
    return recv(fd, &data, sizeof(data), MSG_PEEK | MSG_DONTWAIT) < 0 && errno == EAGAIN;
}

static void do_wait(char **words, int n_words)
{
    struct pollfd polled = {.fd = slot_fd(words[1]), .events = POLLIN};
    bool helped = !has_timeout(polled.fd);
    size_t how = 0;
    ssize_t n;
    int error;

    (void)n_words;
    if (poll(&polled, 1, 0) > 0 || is_vforked) {
        tell(" need not");
        return;
    }
    while (how < sizeof(waits) / sizeof(waits[0]) - 1 && strcmp(waits[how].name, words[2]) != 0)
        how++;
    helped = helped && would_wait(polled.fd, words[2]);
    if (helped)
        interrupt_begin(-1, false);
    n = waits[how].call(polled.fd);
    error = errno;
    if (helped)
        interrupt_end();
    errno = error;
    tell_result((int)n);
}

const struct operation message_operations[] = {
    {"sendto", do_sendto},     {"missendto", do_missendto}, {"sendmsg", do_sendmsg},
    {"sendmmsg", do_sendmmsg}, {"recvfrom", do_recvfrom},   {"recvmsg", do_recvmsg},
    {"recvmmsg", do_recvmmsg}, {"wait", do_wait},           {NULL, NULL},
};
