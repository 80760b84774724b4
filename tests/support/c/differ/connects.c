/* connects.c - operations that connect
 *
 *   connect SLOT TARGET         as it should be called
 *   misconnect SLOT TARGET HOW  with the length that HOW says, or: null, unmapped (addresses);
 *                               family (one that does not exist), other (the other internet family)
 *   unconnect SLOT LENGTH       AF_UNSPEC
 *   restart on|off              whether a call that waits is restarted by the first signal
 *   state SLOT
 *
 * A blocking connect() that nobody answers is interrupted by signals, unless SO_SNDTIMEO ends it.
 * A socket that IP_FREEBIND has bound to a foreign address does not connect: what it sends could leave the
 * loopback device. "timed out" marks what SO_SNDTIMEO has ended. */
#include "differ.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <unistd.h>

#define SYN_SENT 2 /* include/net/tcp_states.h */
#define CLOSE 7

static bool has_timeout(int fd)
{
    struct timeval timeout = {0};
    socklen_t size = sizeof(timeout);

    return getsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, &size) == 0 &&
           (timeout.tv_sec != 0 || timeout.tv_usec != 0);
}

/* is_foreign - whether what the socket sends could leave the loopback device */
bool is_foreign(int fd)
{
    struct sockaddr_in local;
    socklen_t length = sizeof(local);

    return getsockname(fd, (struct sockaddr *)&local, &length) == 0 &&
           local.sin_family == AF_INET && local.sin_addr.s_addr != 0 &&
           ntohl(local.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET;
}

/* An address that was mapped from IPv4 stays the socket's after a failure, and reaches no IPv6 address. */
static bool is_astray(int fd, const struct sockaddr_storage *address)
{
    const struct sockaddr_in6 *to = (const struct sockaddr_in6 *)address;
    struct sockaddr_in6 local;
    socklen_t length = sizeof(local);

    return getsockname(fd, (struct sockaddr *)&local, &length) == 0 &&
           local.sin6_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&local.sin6_addr) &&
           to->sin6_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&to->sin6_addr);
}

enum prospect {
    RETURNS,  /* no TCP, or not blocking */
    ANSWERED, /* soon, most likely */
    WAITS,    /* for ever */
};

/* note_attempt - note whether an attempt that begins now has an answer */
void note_attempt(int fd, bool hole)
{
    struct tcp_view view = tcp_view_of(fd);
    struct note *note = view.state < 0 ? NULL : note_of(fd);

    if (note != NULL && view.state == CLOSE)
        note->hole = hole;
}

/* What becomes of a connect() to there. */
static enum prospect prospect_of(int fd, bool hole)
{
    struct tcp_view view = tcp_view_of(fd);
    struct note *note = view.state < 0 ? NULL : note_of(fd);
    int flags = fcntl(fd, F_GETFL);

    if (note == NULL || flags < 0)
        return RETURNS;
    if ((flags & O_NONBLOCK) != 0)
        return RETURNS;
    if (view.state == SYN_SENT)
        return note->hole || !view.sent_syn ? WAITS : ANSWERED;
    if (view.state == CLOSE)
        return hole ? WAITS : ANSWERED;
    return RETURNS;
}

/* @mistaken: the kernel may refuse it whatever becomes of the attempt, so that no signal may meet it */
static void connect_and_tell(int fd, const struct sockaddr_storage *address, socklen_t length,
                             bool hole, bool mistaken)
{
    enum prospect prospect = prospect_of(fd, hole);
    bool timed = prospect != RETURNS && has_timeout(fd);
    bool helped = prospect != RETURNS && !timed;
    int result;
    int error;

    if (is_foreign(fd)) {
        tell(" from a foreign address");
        return;
    }
    if (is_vforked && prospect == WAITS && !timed) {
        tell(" would wait");
        return;
    }
    helped = helped && !is_vforked;
    note_attempt(fd, hole);
    if (helped)
        interrupt_begin(fd, mistaken || prospect == ANSWERED);
    result = connect(fd, (const struct sockaddr *)address, length);
    error = errno;
    if (helped)
        interrupt_end();
    errno = error;
    if (timed && result < 0 && (error == EINPROGRESS || error == EALREADY))
        tell(" timed out");
    tell_result(result);
}

static bool parse(char **words, int fd, struct target *ret)
{
    if (target_parse(words[2], fd, ret))
        return true;
    tell(" no such target");
    return false;
}

static void do_connect(char **words, int n_words)
{
    int fd = slot_fd(words[1]);
    struct target target;

    (void)n_words;
    if (parse(words, fd, &target))
        connect_and_tell(fd, &target.storage, target.length,
                         target.hole || is_astray(fd, &target.storage), false);
}

/* mistake - make a mistake of an address, or of its length
 * Return: where the address is to be said to be. */
const struct sockaddr_storage *mistake(struct target *target, const char *how)
{
    if (strcmp(how, "null") == 0)
        return NULL;
    if (strcmp(how, "unmapped") == 0) {
        void *page = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        must("mmap", page == MAP_FAILED ? -1 : 0);
        munmap(page, 1);
        return page;
    }
    if (strcmp(how, "family") == 0) {
        target->storage.ss_family = AF_MAX + 1;
    } else if (strcmp(how, "other") == 0) {
        target->storage.ss_family = target->storage.ss_family == AF_INET ? AF_INET6 : AF_INET;
        target->length = sizeof(struct sockaddr_in6);
    } else {
        target->length = (socklen_t)atoi(how);
    }
    return &target->storage;
}

static void do_misconnect(char **words, int n_words)
{
    int fd = slot_fd(words[1]);
    const struct sockaddr_storage *address;
    struct target target;
    bool astray;

    (void)n_words;
    if (!parse(words, fd, &target))
        return;
    address = mistake(&target, words[3]);
    astray = is_astray(fd, &target.storage);
    connect_and_tell(fd, address, target.length, target.hole || astray, true);
}

static void do_unconnect(char **words, int n_words)
{
    struct sockaddr_storage nothing = {.ss_family = AF_UNSPEC};

    (void)n_words;
    tell_result(connect(slot_fd(words[1]), (struct sockaddr *)&nothing, (socklen_t)atoi(words[2])));
}

static void do_restart(char **words, int n_words)
{
    (void)n_words;
    restarting = strcmp(words[1], "on") == 0;
}

static void do_state(char **words, int n_words)
{
    (void)n_words;
    tell(" %s", tcp_state_name(tcp_view_of(slot_fd(words[1])).state));
}

const struct operation connect_operations[] = {
    {"connect", do_connect}, {"misconnect", do_misconnect}, {"unconnect", do_unconnect},
    {"restart", do_restart}, {"state", do_state},           {NULL, NULL},
};
