/* say.h - what every test program needs: addresses from words, results in words
 *
 * A program prints one line a step, "step: result", on an unbuffered stdout, so that a test can wait
 * for a step, and compare whole transcripts. Errors of set-up end the program with status 99. */
#ifndef SAY_H
#define SAY_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SET_UP_FAILED 99
#define PATIENCE_MS 30000

/* sure - the value of a call that can only fail when the test itself is broken */
static inline int sure(const char *what, int value)
{
    if (value < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        _exit(SET_UP_FAILED);
    }
    return value;
}

#ifndef __GLIBC__ /* musl has sentences only */
#define strerrorname_np strerror
#endif

static inline const char *name_of(int error)
{
    const char *name = error == 0 ? "0" : strerrorname_np(error);

    return name == NULL ? "?" : name;
}

/* say - print "step: 0" or "step: ERRNO" for a call that returned `value` */
__attribute__((format(printf, 2, 3))) static inline void say(int value, const char *format, ...)
{
    int error = errno;
    va_list words;

    va_start(words, format);
    vprintf(format, words);
    va_end(words);
    printf(": %s\n", value < 0 ? name_of(error) : "0");
    fflush(stdout);
}

/* say_count - print "step: N" or "step: ERRNO" for a call that returned how many */
static inline void say_count(const char *step, ssize_t n)
{
    if (n < 0)
        printf("%s: %s\n", step, name_of(errno));
    else
        printf("%s: %zd\n", step, n);
    fflush(stdout);
}

struct address {
    struct sockaddr_storage storage;
    socklen_t length;
    int family;
};

static inline const struct sockaddr *sockaddr_of(const struct address *address)
{
    return (const struct sockaddr *)&address->storage;
}

/* address_of - HOST and PORT, given as numbers */
static inline struct address address_of(const char *host, const char *port)
{
    struct address result = {.family = AF_INET, .length = sizeof(struct sockaddr_in)};
    struct sockaddr_in *in = (struct sockaddr_in *)&result.storage;
    struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)&result.storage;

    if (inet_pton(AF_INET, host, &in->sin_addr) == 1) {
        in->sin_family = AF_INET;
        in->sin_port = htons((uint16_t)atoi(port));
        return result;
    }
    memset(&result.storage, 0, sizeof(result.storage));
    if (inet_pton(AF_INET6, host, &in6->sin6_addr) != 1) {
        fprintf(stderr, "not an address: %s\n", host);
        _exit(SET_UP_FAILED);
    }
    result.family = AF_INET6;
    result.length = sizeof(*in6);
    in6->sin6_family = AF_INET6;
    in6->sin6_port = htons((uint16_t)atoi(port));
    return result;
}

static inline int tcp_socket(const struct address *address, int flags)
{
    return sure("socket", socket(address->family, SOCK_STREAM | flags, 0));
}

static inline int dial(int fd, const struct address *address)
{
    return connect(fd, sockaddr_of(address), address->length);
}

/* wait_for - poll one fd; prints nothing. Return: revents, 0 when patience ended */
static inline int wait_for(int fd, short events)
{
    struct pollfd one = {.fd = fd, .events = events};

    while (poll(&one, 1, PATIENCE_MS) < 0)
        if (errno != EINTR)
            sure("poll", -1);
    return one.revents;
}

/* say_rest - print what arrives until end of file, which is a greeting and its newline */
static inline void say_rest(int fd, const char *step)
{
    char text[256];
    size_t n = 0;
    ssize_t got = 0;

    while (n < sizeof(text) - 1) {
        wait_for(fd, POLLIN);
        got = read(fd, text + n, sizeof(text) - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    text[n] = '\0';
    text[strcspn(text, "\n")] = '\0';
    printf("%s: %s\n", step, got < 0 ? name_of(errno) : text);
    fflush(stdout);
}

static inline int socket_error(int fd)
{
    int error = 0;
    socklen_t length = sizeof(error);

    sure("getsockopt", getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &length));
    return error;
}

/* wait_line - until the test says so: it writes a line to our standard input
 * Return: 0 at end of file */
static inline int wait_line(void)
{
    char byte = 0;

    while (read(STDIN_FILENO, &byte, 1) == 1)
        if (byte == '\n')
            return 1;
    return 0;
}

#endif
