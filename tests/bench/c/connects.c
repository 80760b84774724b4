/* connects.c - what making connections costs
 *
 * Theory of operation: for latencies the close is outside what is timed, for rates it is inside, because
 * a program that connects also closes. Threads start together, at a barrier.
 *
 * A connection is made when the server's kernel has queued it: the server may come to it much later, and a
 * proxy then only begins. So a rate ends with an echo over one more connection, which the server answers when
 * it has had all before it; and so does, untimed, whatever else connects, lest the server still works when
 * somebody else is measured. What connecting is for shows in measure_first_byte.
 * Limits: no more connections at once than the server's queue holds (server.c, BACKLOG). */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "probe.h"

#define THREADS_MAX 64

static int open_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("socket");
    return fd;
}

int open_connection(void)
{
    int fd = open_socket();

    if (connect(fd, (const struct sockaddr *)&server, sizeof(server)) < 0)
        fail("connect");
    return fd;
}

void reset_connection(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) < 0 || close(fd) < 0)
        fail("close");
}

static void echo(int fd)
{
    char bytes[2] = {'e', 'x'}; /* server.c */

    if (send(fd, bytes, sizeof(bytes), MSG_NOSIGNAL) != sizeof(bytes) || recv(fd, bytes, 1, 0) != 1)
        fail("echo");
}

/* Wait until the server is done with all connections before. */
static void settle(void)
{
    int fd = open_connection();

    echo(fd);
    reset_connection(fd);
}

static void close_socket(int fd)
{
    if (close(fd) < 0)
        fail("close");
}

static int open_answered(void)
{
    int fd = open_connection();

    echo(fd);
    return fd;
}

static int open_refused(void)
{
    int fd = open_socket();

    if (connect(fd, (const struct sockaddr *)&server, sizeof(server)) == 0 || errno != ECONNREFUSED)
        fail("connect: it was to be refused");
    return fd;
}

/* What closing costs, an interceptor that has a duplicate included, is outside. */
static struct times measure_opening(size_t n, int (*open_one)(void), void (*close_one)(int fd))
{
    struct times times = make_times(n);

    for (size_t i = 0; i < n + WARM_UP; i++) {
        uint64_t begin = now_ns();
        int fd = open_one();
        uint64_t end = now_ns();

        if (i >= WARM_UP)
            times.ns[i - WARM_UP] = end - begin;
        close_one(fd);
    }
    return times;
}

void measure_socket(size_t n)
{
    say_times(measure_opening(n, open_socket, close_socket));
}

void measure_refused(size_t n)
{
    say_times(measure_opening(n, open_refused, close_socket));
}

void measure_connect(size_t n)
{
    struct times times = measure_opening(n, open_connection, reset_connection);

    settle();
    say_times(times);
}

/* Until the server has answered a byte. */
void measure_first_byte(size_t n)
{
    struct times times = measure_opening(n, open_answered, reset_connection);

    settle();
    say_times(times);
}

struct work {
    pthread_barrier_t *start;
    size_t n;
};

static void *connect_repeatedly(void *argument)
{
    const struct work *work = argument;

    (void)pthread_barrier_wait(work->start);
    for (size_t i = 0; i < work->n; i++)
        reset_connection(open_connection());
    return NULL;
}

void measure_rate(size_t n, size_t n_threads)
{
    pthread_t threads[THREADS_MAX];
    pthread_barrier_t start;
    struct work work = {.start = &start, .n = n / n_threads};
    uint64_t begin;

    errno = EINVAL;
    if (n_threads > THREADS_MAX || work.n == 0)
        fail("rate");
    (void)pthread_barrier_init(&start, NULL, (unsigned)n_threads + 1);
    for (size_t i = 0; i < n_threads; i++)
        if (pthread_create(&threads[i], NULL, connect_repeatedly, &work) != 0)
            fail("pthread_create");
    begin = now_ns();
    (void)pthread_barrier_wait(&start);
    for (size_t i = 0; i < n_threads; i++)
        (void)pthread_join(threads[i], NULL);
    settle();
    say_rate(work.n * n_threads, now_ns() - begin);
    (void)pthread_barrier_destroy(&start);
}
