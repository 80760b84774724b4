/* check.h - what the test programs share: checks that say where they failed, and a few fixtures
 *
 * A failed check is printed and counted, and the program goes on; end main() with
 * `return check_result();`. What cannot be tried here (a privilege, a kernel feature) is said with
 * check_skip(), which makes the program fail when MESHFD_REQUIRE_LIVE=1 asks for everything. */
#ifndef MESHFD_CHECK_H
#define MESHFD_CHECK_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "../meshfd.h"

static int check_n_failed;
static const char *check_about = ""; /* printed with a failure: the row of a table, say */

static inline void check_failed(const char *file, int line, const char *text)
{
    (void)fprintf(stderr, "%s:%d: %s%s%s\n", file, line, text,
                  *check_about == '\0' ? "" : "; about ", check_about);
    check_n_failed++;
}

static inline void check_equal(const char *file, int line, const char *what, long long actual,
                               long long expected)
{
    char text[512];

    if (actual == expected)
        return;
    (void)snprintf(text, sizeof(text), "%s is %lld (%#llx), not %lld (%#llx)", what, actual,
                   (unsigned long long)actual, expected, (unsigned long long)expected);
    check_failed(file, line, text);
}

#define CHECK(condition)                                                                           \
    ((condition) ? (void)0 : check_failed(__FILE__, __LINE__, "not so: " #condition))
#define CHECK_EQ(actual, expected)                                                                 \
    check_equal(__FILE__, __LINE__, #actual, (long long)(actual), (long long)(expected))

/* For what the rest of a test stands on. */
#define NEED(condition)                                                                            \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            check_failed(__FILE__, __LINE__, "needed: " #condition);                               \
            (void)fprintf(stderr, "errno: %s\n", strerror(errno));                                 \
            exit(1);                                                                               \
        }                                                                                          \
    } while (0)

static inline void check_skip(const char *what)
{
    const char *required = getenv("MESHFD_REQUIRE_LIVE");

    (void)fprintf(stderr, "not tried: %s\n", what);
    if (required != NULL && strcmp(required, "1") == 0)
        check_n_failed++;
}

static inline int check_result(void)
{
    return check_n_failed == 0 ? 0 : 1;
}

static inline bool is_open(int fd)
{
    return fcntl(fd, F_GETFD) >= 0;
}

static inline unsigned count_open_fds(void)
{
    unsigned n = 0;

    for (int fd = 0; fd < 1024; fd++)
        n += is_open(fd);
    return n;
}

/* "127.0.0.1" or "::1" as an address; "": none */
static inline struct mfd_address address_of(const char *text, uint16_t port)
{
    struct mfd_address address = {.port = port};

    if (inet_pton(AF_INET, text, address.bytes) == 1)
        address.family = AF_INET;
    else if (inet_pton(AF_INET6, text, address.bytes) == 1)
        address.family = AF_INET6;
    else
        NEED(*text == '\0');
    return address;
}

static inline int memfd_of(const void *data, size_t size)
{
    int fd = memfd_create("test", MFD_CLOEXEC | MFD_ALLOW_SEALING);

    NEED(fd >= 0 && write(fd, data, size) == (ssize_t)size);
    return fd;
}

static inline int sealed_memfd_of(const void *data, size_t size)
{
    int fd = memfd_of(data, size);

    NEED(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW) == 0);
    return fd;
}

/* One number after the other, the same in every run (xorshift32). */
static inline uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

#endif
