/* probe.c - measure, from inside one program, what its system calls and its connections cost
 *
 * Usage: probe ADDRESS PORT CONNECTS RATE_CONNECTS GETPPIDS ROUND_TRIPS STREAM_MIB
 * Prints one JSON object. Times are CLOCK_MONOTONIC nanoseconds.
 *
 * Theory of operation: it knows nothing of meshfd; whether its calls are intercepted is up to who
 * starts it. Everything is measured after a warm-up, so that neither a cold cache nor the start of an
 * interceptor counts. Connections are closed with a reset (SO_LINGER 0), which leaves no TIME_WAIT, so
 * no run can exhaust the ephemeral ports; for latencies the close is outside what is timed, for rates
 * it is inside, because a program that connects also closes.
 * Many fds: eventfds that are registered in an epoll instance, as a busy server has them; beside it stands
 * what reading the fdinfo of each costs, which is how an interceptor that replaces sockets finds the epoll
 * instances that hold them. Datagrams go to a socket of our own at the server's port, which nobody reads.
 * Limits: THREADS_MAX; any error ends the program, since a failed connection has no time. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000ULL
#define THREADS_MAX 8
#define WARM_UP 32
#define MESSAGE_BYTES 64
#define CHUNK_BYTES (1 << 17)

static struct sockaddr_in server = {.sin_family = AF_INET};

_Noreturn static void fail(const char *what)
{
    fprintf(stderr, "probe: %s: %s\n", what, strerror(errno));
    exit(1);
}

static uint64_t now_ns(void)
{
    struct timespec now;

    (void)clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_S + (uint64_t)now.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a;
    uint64_t right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static uint64_t quantile(const uint64_t *sorted, size_t n, unsigned percent)
{
    return sorted[(n - 1) * percent / 100];
}

static int open_connection(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("socket");
    if (connect(fd, (const struct sockaddr *)&server, sizeof(server)) < 0)
        fail("connect");
    return fd;
}

static void reset_connection(int fd)
{
    struct linger at_once = {.l_onoff = 1, .l_linger = 0};

    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once)) < 0 || close(fd) < 0)
        fail("close");
}

/* What closing it costs, an interceptor that has a duplicate included, is outside. */
static void measure_socket(size_t n)
{
    uint64_t *times = calloc(n, sizeof(*times));

    if (times == NULL)
        fail("calloc");
    for (size_t i = 0; i < n + WARM_UP; i++) {
        uint64_t begin = now_ns();
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        uint64_t end = now_ns();

        if (fd < 0 || close(fd) < 0)
            fail("socket");
        if (i >= WARM_UP)
            times[i - WARM_UP] = end - begin;
    }
    qsort(times, n, sizeof(*times), by_value);
    printf("\"socket_p50_ns\": %llu, ", (unsigned long long)quantile(times, n, 50));
    free(times);
}

static void measure_connect(size_t n, const char *p50_name, const char *p99_name)
{
    uint64_t *times = calloc(n, sizeof(*times));

    if (times == NULL)
        fail("calloc");
    for (size_t i = 0; i < n + WARM_UP; i++) {
        uint64_t begin = now_ns();
        int fd = open_connection();
        uint64_t end = now_ns();

        if (i >= WARM_UP)
            times[i - WARM_UP] = end - begin;
        reset_connection(fd);
    }
    qsort(times, n, sizeof(*times), by_value);
    printf("\"%s\": %llu, ", p50_name, (unsigned long long)quantile(times, n, 50));
    if (p99_name != NULL)
        printf("\"%s\": %llu, ", p99_name, (unsigned long long)quantile(times, n, 99));
    free(times);
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

static void measure_rate(size_t n, unsigned n_threads)
{
    pthread_t threads[THREADS_MAX];
    pthread_barrier_t start;
    struct work work = {.start = &start, .n = n / n_threads};
    uint64_t begin;

    (void)pthread_barrier_init(&start, NULL, n_threads + 1);
    for (unsigned i = 0; i < n_threads; i++)
        if (pthread_create(&threads[i], NULL, connect_repeatedly, &work) != 0)
            fail("pthread_create");
    begin = now_ns();
    (void)pthread_barrier_wait(&start);
    for (unsigned i = 0; i < n_threads; i++)
        (void)pthread_join(threads[i], NULL);
    printf("\"connects_per_s_%u\": %.1f, ", n_threads,
           (double)(work.n * n_threads) * (double)NS_PER_S / (double)(now_ns() - begin));
    (void)pthread_barrier_destroy(&start);
}

/* Return: the epoll instance that they are registered in. */
static int open_many(size_t n, int *ret_fds)
{
    struct rlimit limit;
    int epoll_fd = epoll_create1(EPOLL_CLOEXEC);

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
        fail("getrlimit");
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(RLIMIT_NOFILE, &limit) < 0 || epoll_fd < 0)
        fail("setrlimit");
    for (size_t i = 0; i < n; i++) {
        struct epoll_event event = {.events = EPOLLIN};

        ret_fds[i] = eventfd(0, EFD_CLOEXEC);
        if (ret_fds[i] < 0 || epoll_ctl(epoll_fd, EPOLL_CTL_ADD, ret_fds[i], &event) < 0)
            fail("eventfd");
    }
    return epoll_fd;
}

static void scan_fdinfo(const int *fds, size_t n)
{
    uint64_t begin = now_ns();

    for (size_t i = 0; i < n; i++) {
        char path[48];
        char text[1024];
        int fd;

        (void)snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fds[i]);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || read(fd, text, sizeof(text)) < 0 || close(fd) < 0)
            fail(path);
    }
    printf("\"fdinfo_scan_ns\": %llu, ", (unsigned long long)(now_ns() - begin));
}

static void measure_many_fds(size_t n_connects, size_t n_fds, const char *name, int scan)
{
    int *fds = calloc(n_fds, sizeof(*fds));
    int epoll_fd;

    if (fds == NULL)
        fail("calloc");
    epoll_fd = open_many(n_fds, fds);
    measure_connect(n_connects, name, NULL);
    if (scan)
        scan_fdinfo(fds, n_fds);
    for (size_t i = 0; i < n_fds; i++)
        (void)close(fds[i]);
    (void)close(epoll_fd);
    free(fds);
}

static void measure_calls(size_t n)
{
    const struct sockaddr_in here = {
        .sin_family = AF_INET, .sin_port = server.sin_port, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    uint64_t *times = calloc(n, sizeof(*times));
    int receiver = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int sender = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    int connection = open_connection();

    if (times == NULL || receiver < 0 || sender < 0 ||
        bind(receiver, (const struct sockaddr *)&here, sizeof(here)) < 0)
        fail("bind");
    for (size_t i = 0; i < n; i++) {
        uint64_t begin = now_ns();

        if (sendto(sender, "x", 1, 0, (const struct sockaddr *)&server, sizeof(server)) < 0)
            fail("sendto");
        times[i] = now_ns() - begin;
    }
    qsort(times, n, sizeof(*times), by_value);
    printf("\"sendto_p50_ns\": %llu, ", (unsigned long long)quantile(times, n, 50));
    for (size_t i = 0; i < n; i++) {
        struct sockaddr_in peer;
        socklen_t length = sizeof(peer);
        uint64_t begin = now_ns();

        if (getpeername(connection, (struct sockaddr *)&peer, &length) < 0)
            fail("getpeername");
        times[i] = now_ns() - begin;
    }
    qsort(times, n, sizeof(*times), by_value);
    printf("\"getpeername_p50_ns\": %llu, ", (unsigned long long)quantile(times, n, 50));
    free(times);
    (void)close(receiver);
    (void)close(sender);
    reset_connection(connection);
}

static void measure_getppid(size_t n)
{
    uint64_t begin = now_ns();

    for (size_t i = 0; i < n; i++)
        (void)syscall(SYS_getppid);
    printf("\"getppids_per_s\": %.1f, ", (double)n * (double)NS_PER_S / (double)(now_ns() - begin));
}

static void send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);

        if (sent < 0)
            fail("send");
        bytes += sent;
        n -= (size_t)sent;
    }
}

static void receive_all(int fd, char *bytes, size_t n)
{
    ssize_t received = recv(fd, bytes, n, MSG_WAITALL);

    if (received < 0 || (size_t)received != n)
        fail("recv");
}

/* A connection whose first byte says what the server shall do (server.c). */
static int open_for(const char *purpose)
{
    int one = 1;
    int fd = open_connection();

    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        fail("setsockopt");
    send_all(fd, purpose, 1);
    return fd;
}

static void measure_round_trip(size_t n)
{
    char message[MESSAGE_BYTES] = {0};
    uint64_t *times = calloc(n, sizeof(*times));
    int fd = open_for("e");

    if (times == NULL)
        fail("calloc");
    for (size_t i = 0; i < n + WARM_UP; i++) {
        uint64_t begin = now_ns();

        send_all(fd, message, sizeof(message));
        receive_all(fd, message, sizeof(message));
        if (i >= WARM_UP)
            times[i - WARM_UP] = now_ns() - begin;
    }
    qsort(times, n, sizeof(*times), by_value);
    printf("\"round_trip_p50_ns\": %llu, ", (unsigned long long)quantile(times, n, 50));
    free(times);
    reset_connection(fd);
}

static void measure_stream(size_t mib)
{
    static char chunk[CHUNK_BYTES];
    char done;
    uint64_t begin;
    int fd = open_for("s");

    begin = now_ns();
    for (size_t i = 0; i < mib * ((1 << 20) / CHUNK_BYTES); i++)
        send_all(fd, chunk, sizeof(chunk));
    if (shutdown(fd, SHUT_WR) < 0)
        fail("shutdown");
    receive_all(fd, &done, 1);
    printf("\"stream_mib_per_s\": %.1f",
           (double)mib * (double)NS_PER_S / (double)(now_ns() - begin));
    reset_connection(fd);
}

static size_t count(const char *text)
{
    char *end;
    unsigned long long n = strtoull(text, &end, 10);

    if (*end != '\0' || n == 0) {
        errno = EINVAL;
        fail(text);
    }
    return (size_t)n;
}

int main(int argc, char **argv)
{
    if (argc != 8 || inet_pton(AF_INET, argv[1], &server.sin_addr) != 1) {
        fputs("usage: probe ADDRESS PORT CONNECTS RATE_CONNECTS GETPPIDS ROUND_TRIPS STREAM_MIB\n",
              stderr);
        return 2;
    }
    server.sin_port = htons((uint16_t)count(argv[2]));
    printf("{");
    measure_socket(count(argv[3]));
    measure_connect(count(argv[3]), "connect_p50_ns", "connect_p99_ns");
    measure_many_fds(count(argv[3]), 1000, "connect_1000_p50_ns", 0);
    measure_many_fds(count(argv[3]), 19000, "connect_19000_p50_ns", 1);
    measure_calls(count(argv[3]));
    measure_rate(count(argv[4]), 1);
    measure_rate(count(argv[4]), THREADS_MAX);
    measure_getppid(count(argv[5]));
    measure_round_trip(count(argv[6]));
    measure_stream(count(argv[7]));
    printf("}\n");
    return 0;
}
