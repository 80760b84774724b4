/* sockets.c - operations that make, copy, name, bind and end sockets
 *
 *   socket SLOT DOMAIN TYPE PROTOCOL [nonblock] [cloexec]
 *   bind SLOT HOST|taken:PLACE     listen SLOT BACKLOG     accept SLOT INTO [nonblock] [cloexec]
 *   oldaccept SLOT INTO     accept(2), which has no flags
 *   dup SLOT INTO     dup2 SLOT INTO     dup3 SLOT INTO     dupfd SLOT INTO     pass SLOT INTO
 *   close SLOT     shutdown SLOT 0|1|2     status SLOT nonblock|block     descriptor SLOT cloexec|keep
 *   flags SLOT     stat SLOT     owner SLOT     name SLOT LENGTH     peer SLOT LENGTH
 *
 * LENGTH is what the program says that it has room for; "null" gives no room at all.
 * accept waits for nothing: a blocking one with no connection to take is left out. */
#include "differ.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define HIGH_FD 50 /* F_DUPFD_CLOEXEC's least */
#define MARK 0xaa

struct word_value {
    const char *word;
    int value;
};

static int value_of(const struct word_value *values, const char *word)
{
    for (; values->word != NULL; values++)
        if (strcmp(values->word, word) == 0)
            return values->value;
    return atoi(word);
}

static int creation_flags(char **words, int from, int n_words)
{
    int flags = 0;

    for (int i = from; i < n_words; i++)
        flags |= strcmp(words[i], "nonblock") == 0 ? SOCK_NONBLOCK : SOCK_CLOEXEC;
    return flags;
}

static void do_socket(char **words, int n_words)
{
    static const struct word_value domains[] = {
        {"inet", AF_INET}, {"inet6", AF_INET6}, {"unix", AF_UNIX}, {NULL, 0}};
    static const struct word_value types[] = {
        {"stream", SOCK_STREAM}, {"dgram", SOCK_DGRAM}, {"seqpacket", SOCK_SEQPACKET}, {NULL, 0}};
    int flags = creation_flags(words, 5, n_words);
    int fd;

    slot_put(words[1], -1);
    fd = socket(value_of(domains, words[2]), value_of(types, words[3]) | flags, atoi(words[4]));
    tell_result(fd);
    slot_put(words[1], fd);
}

static void do_bind(char **words, int n_words)
{
    struct note *before = note_of(slot_fd(words[1]));
    struct note *after;
    struct target target;

    (void)n_words;
    if (!bind_address_parse(words[2], &target)) {
        tell(" no such address");
        return;
    }
    tell_result(bind(slot_fd(words[1]), (struct sockaddr *)&target.storage, target.length));
    after = note_of(slot_fd(words[1]));
    if (before != NULL && after != NULL) /* it may be another socket now */
        after->buffers = before->buffers;
    say_name(slot_fd(words[1]), false);
}

static void do_listen(char **words, int n_words)
{
    (void)n_words;
    tell_result(listen(slot_fd(words[1]), atoi(words[2])));
}

/* is_listening - whether accept() may wait there */
bool is_listening(int fd)
{
    int listening = 0;
    socklen_t size = sizeof(listening);

    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listening, &size) == 0 && listening;
}

static bool would_wait(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    int flags = fcntl(fd, F_GETFL);

    return flags >= 0 && (flags & O_NONBLOCK) == 0 && is_listening(fd) && poll(&polled, 1, 0) == 0;
}

static void do_accept(char **words, int n_words)
{
    struct sockaddr_storage peer = {0};
    socklen_t length = sizeof(peer);
    int listening = slot_fd(words[1]);
    int fd;

    if (would_wait(listening)) {
        tell(" would wait");
        return;
    }
    if (strcmp(words[0], "oldaccept") == 0)
        fd = accept(listening, (struct sockaddr *)&peer, &length);
    else
        fd = accept4(listening, (struct sockaddr *)&peer, &length,
                     creation_flags(words, 3, n_words));
    tell_result(fd);
    if (fd < 0)
        return;
    tell(" from ");
    say_address(&peer, length, fd);
    slot_put(words[2], fd);
}

static void do_dup(char **words, int n_words)
{
    int from = slot_fd(words[1]);
    int into = slots[slot_index(words[2])];
    int fd;

    (void)n_words;
    if (strcmp(words[0], "dup") == 0)
        fd = dup(from);
    else if (strcmp(words[0], "dupfd") == 0)
        fd = fcntl(from, F_DUPFD_CLOEXEC, HIGH_FD);
    else if (strcmp(words[0], "dup3") == 0)
        fd = dup3(from, into < 0 ? HIGH_FD : into, O_CLOEXEC);
    else
        fd = dup2(from, into < 0 ? HIGH_FD : into);
    tell_result(fd);
    if (fd >= 0 && fd == into)
        return; /* it took the place of what was there */
    if (fd >= 0)
        slot_put(words[2], fd);
}

/* SCM_RIGHTS to ourselves: the same open file at a new number. */
static void do_pass(char **words, int n_words)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    char byte = 0;
    struct iovec data = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);
    int from = slot_fd(words[1]);
    int channel[2];
    int fd = -1;

    (void)n_words;
    must("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &from, sizeof(from));
    if (sendmsg(channel[0], &message, 0) < 0) {
        tell_result(-1);
    } else {
        must("recvmsg", (int)recvmsg(channel[1], &message, MSG_CMSG_CLOEXEC));
        memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
        tell(" %d", fd);
        slot_put(words[2], fd);
    }
    close(channel[0]);
    close(channel[1]);
}

static void do_close(char **words, int n_words)
{
    int slot = slot_index(words[1]);

    (void)n_words;
    tell_result(close(slot_fd(words[1])));
    slots[slot] = -1;
}

static void do_shutdown(char **words, int n_words)
{
    (void)n_words;
    tell_result(shutdown(slot_fd(words[1]), atoi(words[2])));
}

static void do_status(char **words, int n_words)
{
    int fd = slot_fd(words[1]);
    int flags = fcntl(fd, F_GETFL);
    bool nonblock = strcmp(words[2], "nonblock") == 0;

    (void)n_words;
    tell_result(flags);
    if (flags >= 0)
        tell_result(fcntl(fd, F_SETFL, nonblock ? flags | O_NONBLOCK : flags & ~O_NONBLOCK));
}

static void do_descriptor(char **words, int n_words)
{
    (void)n_words;
    tell_result(
        fcntl(slot_fd(words[1]), F_SETFD, strcmp(words[2], "cloexec") == 0 ? FD_CLOEXEC : 0));
}

static void do_flags(char **words, int n_words)
{
    (void)n_words;
    tell_result(fcntl(slot_fd(words[1]), F_GETFL));
    tell_result(fcntl(slot_fd(words[1]), F_GETFD));
}

static void do_stat(char **words, int n_words)
{
    struct stat status;
    int result = fstat(slot_fd(words[1]), &status);

    (void)n_words;
    tell_result(result);
    if (result == 0)
        tell(" mode %#o user %u group %u links %lu size %ld", status.st_mode, status.st_uid,
             status.st_gid, (unsigned long)status.st_nlink, (long)status.st_size);
}

static void do_owner(char **words, int n_words)
{
    int fd = slot_fd(words[1]);
    int before = fcntl(fd, F_GETOWN);

    (void)n_words;
    tell(" %s", before == getpid() ? "itself" : before == 0 ? "nobody" : "another");
    tell_result(fcntl(fd, F_SETOWN, getpid()));
}

/* Into a buffer of the length that the words say; what was written, and beyond it. */
static void name_with_length(int fd, bool peer, const char *word)
{
    union {
        struct sockaddr_storage storage;
        unsigned char bytes[sizeof(struct sockaddr_storage)];
    } got;
    bool null = strcmp(word, "null") == 0;
    socklen_t length = null ? sizeof(got) : (socklen_t)atoi(word);
    struct sockaddr *into = null ? NULL : (struct sockaddr *)&got.storage;
    size_t written = sizeof(got);
    int result;

    memset(&got, MARK, sizeof(got));
    result = peer ? getpeername(fd, into, &length) : getsockname(fd, into, &length);
    tell_result(result);
    while (written > 0 && got.bytes[written - 1] == MARK)
        written--;
    if (result < 0)
        return;
    tell(" length %u ", length);
    if (written >= length && length >= sizeof(struct sockaddr_in))
        say_address(&got.storage, length, peer ? fd : -1);
    else
        tell("%s", written <= length ? "short" : "too much");
}

static void do_name(char **words, int n_words)
{
    (void)n_words;
    name_with_length(slot_fd(words[1]), strcmp(words[0], "peer") == 0, words[2]);
}

/* say_name - getsockname() or getpeername() with room for everything */
void say_name(int fd, bool peer)
{
    struct sockaddr_storage storage = {0};
    socklen_t length = sizeof(storage);
    int result = peer ? getpeername(fd, (struct sockaddr *)&storage, &length)
                      : getsockname(fd, (struct sockaddr *)&storage, &length);

    tell(" %s ", peer ? "peer" : "name");
    if (result < 0)
        tell("%s", error_name(errno));
    else
        say_address(&storage, length, peer ? fd : -1);
}

const struct operation socket_operations[] = {
    {"socket", do_socket},     {"bind", do_bind},
    {"listen", do_listen},     {"accept", do_accept},
    {"oldaccept", do_accept},  {"dup", do_dup},
    {"dup2", do_dup},          {"dup3", do_dup},
    {"dupfd", do_dup},         {"pass", do_pass},
    {"close", do_close},       {"status", do_status},
    {"shutdown", do_shutdown}, {"descriptor", do_descriptor},
    {"flags", do_flags},       {"stat", do_stat},
    {"owner", do_owner},       {"name", do_name},
    {"peer", do_name},         {NULL, NULL},
};
