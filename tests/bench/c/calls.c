/* calls.c - what single system calls cost
 *
 * measure_calls: calls that meshfd leaves alone, again and again; how many a second. What a call needs is
 * made ready outside what is timed, in batches. The others are calls that some services have intercepted. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "probe.h"

#define BATCH 100

static int files[BATCH];
static int null_fd;
static int zero_fd;
static int epoll_fd;
static int listening_fd;
static struct sockaddr_in here = {.sin_family = AF_INET};

static void open_null(void)
{
    null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    zero_fd = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    if (null_fd < 0 || zero_fd < 0)
        fail("/dev/null");
}

static void open_ready(void)
{
    struct epoll_event event = {.events = EPOLLIN};
    int ready_fd = eventfd(1, EFD_CLOEXEC);

    epoll_fd = epoll_create1(EPOLL_CLOEXEC);
    if (ready_fd < 0 || epoll_fd < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ready_fd, &event) < 0)
        fail("epoll_ctl");
}

static void open_listening(void)
{
    socklen_t length = sizeof(here);

    here.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    listening_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (listening_fd < 0 || bind(listening_fd, (const struct sockaddr *)&here, sizeof(here)) < 0 ||
        listen(listening_fd, BATCH) < 0 ||
        getsockname(listening_fd, (struct sockaddr *)&here, &length) < 0)
        fail("listen");
}

static void nothing(void)
{
}

static void duplicate_files(void)
{
    for (int i = 0; i < BATCH; i++)
        if ((files[i] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 0)) < 0)
            fail("fcntl");
}

static void queue_clients(void)
{
    for (int i = 0; i < BATCH; i++) {
        files[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (files[i] < 0 || connect(files[i], (const struct sockaddr *)&here, sizeof(here)) < 0)
            fail("connect");
    }
}

static void reset_clients(void)
{
    for (int i = 0; i < BATCH; i++)
        reset_connection(files[i]);
}

static void call_getppid(int i)
{
    (void)i;
    (void)syscall(SYS_getppid);
}

static void call_read(int i)
{
    char byte;

    (void)i;
    if (read(zero_fd, &byte, 1) != 1)
        fail("read");
}

static void call_write(int i)
{
    (void)i;
    if (write(null_fd, "x", 1) != 1)
        fail("write");
}

static void call_epoll_wait(int i)
{
    struct epoll_event event;

    (void)i;
    if (epoll_wait(epoll_fd, &event, 1, 0) != 1)
        fail("epoll_wait");
}

static void call_close(int i)
{
    if (close(files[i]) < 0)
        fail("close");
}

static int accepted[BATCH];

static void call_accept(int i)
{
    accepted[i] = accept4(listening_fd, NULL, NULL, SOCK_CLOEXEC);
    if (accepted[i] < 0)
        fail("accept");
}

static void reset_accepted(void)
{
    for (int i = 0; i < BATCH; i++)
        reset_connection(accepted[i]);
    reset_clients();
}

static const struct kind {
    const char *name;
    void (*open)(void);
    void (*before)(void); /* each batch */
    void (*call)(int i);
    void (*after)(void);
} kinds[] = {
    {"getppid", nothing, nothing, call_getppid, nothing},
    {"read", open_null, nothing, call_read, nothing},
    {"write", open_null, nothing, call_write, nothing},
    {"epoll_wait", open_ready, nothing, call_epoll_wait, nothing},
    {"close", nothing, duplicate_files, call_close, nothing},
    {"accept", open_listening, queue_clients, call_accept, reset_accepted},
};

static const struct kind *find(const char *name)
{
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        if (strcmp(kinds[i].name, name) == 0)
            return &kinds[i];
    errno = EINVAL;
    fail(name);
}

void measure_calls(const char *name, size_t n)
{
    const struct kind *kind = find(name);
    uint64_t total = 0;
    size_t done = 0;

    kind->open();
    for (; done < n; done += BATCH) {
        uint64_t begin;

        kind->before();
        begin = now_ns();
        for (int i = 0; i < BATCH; i++)
            kind->call(i);
        total += now_ns() - begin;
        kind->after();
    }
    say_rate(done, total);
}

/* Datagrams go to a socket of our own at the server's port, which nobody reads. */
void measure_sendto(size_t n)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = server.sin_port};
    struct times times = make_times(n);
    int receiver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (receiver < 0 || sender < 0 || bind(receiver, (const struct sockaddr *)&to, sizeof(to)) < 0)
        fail("bind");
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = now_ns();

        if (sendto(sender, "x", 1, 0, (const struct sockaddr *)&server, sizeof(server)) < 0)
            fail("sendto");
        times.ns[i] = now_ns() - begin;
    }
    (void)close(receiver);
    (void)close(sender);
    say_times(times);
}

void measure_getpeername(size_t n)
{
    struct times times = make_times(n);
    int connection = open_connection();

    for (size_t i = 0; i < n; i++) {
        struct sockaddr_in peer;
        socklen_t length = sizeof(peer);
        uint64_t begin = now_ns();

        if (getpeername(connection, (struct sockaddr *)&peer, &length) < 0)
            fail("getpeername");
        times.ns[i] = now_ns() - begin;
    }
    reset_connection(connection);
    say_times(times);
}
