/* streams.c - operations that move data
 *
 *   send SLOT N [oob]     recv SLOT N [peek]     read SLOT N     write SLOT N
 *   pending SLOT          FIONREAD, SIOCATMARK
 *
 * send and recv do not wait. read and write are made where they will not, or fail.
 * What is sent are the letters of the alphabet, so that it can be seen where they went. */
#include "differ.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/sockios.h>

#define SYN_SENT 2 /* include/net/tcp_states.h */

size_t count_of(const char *word)
{
    int n = atoi(word);

    return n < 0 ? 0 : n > DATA_MAX ? DATA_MAX : (size_t)n;
}

void fill(char *data, size_t n)
{
    static unsigned next;

    for (size_t i = 0; i < n; i++)
        data[i] = (char)('a' + next++ % 26);
}

void tell_data(ssize_t n, const char *data)
{
    tell_result((int)n);
    if (n > 0)
        tell(" '%.*s'", (int)n, data);
}

static void do_send(char **words, int n_words)
{
    char data[DATA_MAX];
    size_t n = count_of(words[2]);
    int flags = MSG_DONTWAIT | (n_words > 3 ? MSG_OOB : 0);

    fill(data, n);
    tell_result((int)send(slot_fd(words[1]), data, n, flags));
}

static void do_recv(char **words, int n_words)
{
    char data[DATA_MAX];
    struct sockaddr_storage from = {0};
    socklen_t length = sizeof(from);
    ssize_t n =
        recvfrom(slot_fd(words[1]), data, count_of(words[2]),
                 MSG_DONTWAIT | (n_words > 3 ? MSG_PEEK : 0), (struct sockaddr *)&from, &length);

    tell_data(n, data);
    if (n >= 0 && length > 0) {
        tell(" from ");
        say_address(&from, length, slot_fd(words[1]));
    }
}

/* Would read() or write() wait? While it connects, a socket of Fast Open's takes data and then waits. */
static bool would_wait(int fd, short events)
{
    struct pollfd polled = {.fd = fd, .events = events};
    int flags = fcntl(fd, F_GETFL);

    if (flags < 0 || (flags & O_NONBLOCK) != 0)
        return false;
    return tcp_view_of(fd).state == SYN_SENT || poll(&polled, 1, 0) == 0;
}

static void do_read(char **words, int n_words)
{
    char data[DATA_MAX];
    int fd = slot_fd(words[1]);

    (void)n_words;
    if (would_wait(fd, POLLIN))
        tell(" would wait");
    else
        tell_data(read(fd, data, count_of(words[2])), data);
}

static void do_write(char **words, int n_words)
{
    char data[DATA_MAX];
    size_t n = count_of(words[2]);
    int fd = slot_fd(words[1]);

    (void)n_words;
    fill(data, n);
    if (would_wait(fd, POLLOUT))
        tell(" would wait");
    else
        tell_result((int)write(fd, data, n));
}

static void do_pending(char **words, int n_words)
{
    int fd = slot_fd(words[1]);
    int n = -1;

    (void)n_words;
    tell_result(ioctl(fd, FIONREAD, &n) < 0 ? -1 : n);
    tell_result(ioctl(fd, SIOCATMARK, &n) < 0 ? -1 : n);
}

const struct operation stream_operations[] = {
    {"send", do_send},   {"recv", do_recv},       {"read", do_read},
    {"write", do_write}, {"pending", do_pending}, {NULL, NULL},
};
