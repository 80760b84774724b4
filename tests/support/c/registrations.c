/* registrations.c - registrations MODE HOST PORT: sockets that are in epoll instances before they are connected
 *
 * The peer greets. Each mode says what an instance reports once it has, whatever has happened in between:
 *
 * oneshot   EPOLLONESHOT, and armed anew               closed    the number is closed, the socket is not
 * reused    the number is another socket's now         anew      the instance is another one now
 * thread    the thread that registered has ended       daemon    so has the process
 * last      the last number that there is              raced     one thread registers while another connects
 * many      500 instances, all of them in another one  child     a child has registered it
 * asleep    a thread sleeps in epoll_wait() meanwhile */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "say.h"

#define DATA 0xfedcba9876543210u
#define FULL 1024 /* registrations that meshfd keeps: with more it has to see which are of use */
#define MANY 500
#define RACES 100

static struct address address;

static int instance(void)
{
    return sure("epoll_create1", epoll_create1(0));
}

static int control(int epoll, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};

    return epoll_ctl(epoll, op, fd, &event);
}

static void add(int epoll, int fd, uint32_t events)
{
    sure("ADD", control(epoll, EPOLL_CTL_ADD, fd, events, DATA));
}

/* What the instance reports, having waited for it. */
static void say_events(int epoll, const char *step, int timeout_ms)
{
    struct epoll_event events[4];
    int n = sure("epoll_wait", epoll_wait(epoll, events, 4, timeout_ms));

    printf("%s: %d", step, n);
    for (int i = 0; i < n; i++)
        printf(" %#x %llx", events[i].events, (unsigned long long)events[i].data.u64);
    printf("\n");
}

static void connect_it(int fd)
{
    say(dial(fd, &address), "connect");
    wait_for(fd, POLLIN);
}

static void raise_limit(void)
{
    struct rlimit limit;

    sure("getrlimit", getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    sure("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
}

/* Sockets that wait, so many that there is no room for more; then they are gone. */
static void crowd(void)
{
    static int fds[FULL];
    int epoll = instance();

    raise_limit();
    for (int i = 0; i < FULL; i++) {
        fds[i] = tcp_socket(&address, 0);
        add(epoll, fds[i], EPOLLIN);
    }
    for (int i = 0; i < FULL; i++)
        close(fds[i]);
    close(epoll);
}

static void oneshot(void)
{
    int epoll = instance();
    int fd = tcp_socket(&address, 0);

    add(epoll, fd, EPOLLIN | EPOLLONESHOT);
    connect_it(fd);
    say_events(epoll, "once", PATIENCE_MS);
    say_events(epoll, "no more", 0);
    say(control(epoll, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLONESHOT, DATA), "armed anew");
    say_events(epoll, "once", PATIENCE_MS);
    say_events(epoll, "no more", 0);
    say(control(epoll, EPOLL_CTL_DEL, fd, 0, 0), "DEL");
    say(control(epoll, EPOLL_CTL_DEL, fd, 0, 0), "DEL");
}

static void closed(void)
{
    int epoll = instance();
    int fd = tcp_socket(&address, 0);
    int other = sure("dup", dup(fd));

    add(epoll, fd, EPOLLIN);
    close(fd);
    say(control(epoll, EPOLL_CTL_MOD, other, EPOLLIN, 1), "MOD of the other number");
    connect_it(other);
    say_events(epoll, "the closed number", PATIENCE_MS);
    close(other);
    say_events(epoll, "nothing", 0);
}

static void reused(void)
{
    int epoll = instance();
    int fd = tcp_socket(&address, 0);
    int again;

    add(epoll, fd, EPOLLIN);
    close(fd);
    again = tcp_socket(&address, 0);
    printf("the same: %d\n", again == fd);
    say(control(epoll, EPOLL_CTL_MOD, again, EPOLLIN, 1), "MOD");
    say(control(epoll, EPOLL_CTL_DEL, again, 0, 1), "DEL");
    say(control(epoll, EPOLL_CTL_ADD, again, EPOLLIN, 2), "ADD");
    connect_it(again);
    say_events(epoll, "the second", PATIENCE_MS);
    close(again);
    fd = tcp_socket(&address, 0);
    connect_it(fd);
    say_events(epoll, "nothing", 0);
}

static void anew(void)
{
    int epoll = instance();
    int fd = tcp_socket(&address, 0);
    int again;

    add(epoll, fd, EPOLLIN);
    close(epoll);
    again = instance();
    printf("the same: %d\n", again == epoll);
    say(control(again, EPOLL_CTL_MOD, fd, EPOLLIN, 1), "MOD");
    say(control(again, EPOLL_CTL_ADD, fd, EPOLLIN, 2), "ADD");
    connect_it(fd);
    say_events(again, "the second", PATIENCE_MS);
}

struct pair {
    int epoll, fd;
};

static void *register_there(void *argument)
{
    struct pair *pair = argument;

    add(pair->epoll, pair->fd, EPOLLIN);
    return NULL;
}

static void by_thread(void)
{
    struct pair pair = {.epoll = instance(), .fd = tcp_socket(&address, 0)};
    pthread_t thread;

    sure("pthread_create", -pthread_create(&thread, NULL, register_there, &pair));
    sure("pthread_join", -pthread_join(thread, NULL));
    crowd();
    connect_it(pair.fd);
    say_events(pair.epoll, "in", PATIENCE_MS);
}

/* As a daemon does it: who opened everything is gone. */
static void by_daemon(void)
{
    int over[2];
    int gone[2];
    char byte;

    sure("pipe", pipe(over));
    if (sure("fork", fork()) == 0) {
        int epoll = instance();
        int fd = tcp_socket(&address, 0);

        add(epoll, fd, EPOLLIN);
        sure("pipe", pipe(gone));
        if (sure("fork", fork()) > 0)
            _exit(0);
        close(gone[1]);
        (void)!read(gone[0], &byte, 1); /* the first one's end */
        crowd();
        connect_it(fd);
        say_events(epoll, "in", PATIENCE_MS);
        fflush(stdout);
        _exit(0);
    }
    close(over[1]);
    (void)!read(over[0], &byte, 1); /* the end of both */
}

static void last(void)
{
    int epoll = instance();
    int other = instance();
    int fd = tcp_socket(&address, 0);
    struct rlimit limit;
    int at;

    raise_limit();
    sure("getrlimit", getrlimit(RLIMIT_NOFILE, &limit));
    at = sure("dup2", dup2(fd, (int)limit.rlim_cur - 1));
    add(epoll, at, EPOLLIN);
    add(other, fd, EPOLLOUT);
    connect_it(fd);
    say_events(epoll, "the last", PATIENCE_MS);
    say_events(other, "the other", PATIENCE_MS);
}

static pthread_barrier_t barrier;

static void *register_now(void *argument)
{
    pthread_barrier_wait(&barrier);
    return register_there(argument);
}

static void raced(void)
{
    int n = 0;

    sure("barrier", -pthread_barrier_init(&barrier, NULL, 2));
    for (int i = 0; i < RACES; i++) {
        struct pair pair = {.epoll = instance(), .fd = tcp_socket(&address, 0)};
        struct epoll_event event = {0};
        pthread_t thread;

        sure("pthread_create", -pthread_create(&thread, NULL, register_now, &pair));
        pthread_barrier_wait(&barrier);
        sure("connect", dial(pair.fd, &address));
        sure("pthread_join", -pthread_join(thread, NULL));
        n += epoll_wait(pair.epoll, &event, 1, PATIENCE_MS) == 1 && event.events == EPOLLIN &&
             event.data.u64 == DATA;
        close(pair.fd);
        close(pair.epoll);
    }
    printf("arrived: %d\n", n);
}

static int count(const int *epolls, uint32_t events)
{
    struct epoll_event event;
    int n = 0;

    for (int i = 0; i < MANY; i++)
        n += epoll_wait(epolls[i], &event, 1, 0) == 1 && event.data.u64 == DATA + (uint64_t)i &&
             event.events == events;
    return n;
}

static int control_all(const int *epolls, int op, int fd, uint32_t events)
{
    int n = 0;

    for (int i = 0; i < MANY; i++)
        n += control(epolls[i], op, fd, events, DATA + (uint64_t)i) == 0;
    return n;
}

static void many(void)
{
    static int epolls[MANY];
    static struct epoll_event events[MANY];
    int outer = instance();
    int fd = tcp_socket(&address, 0);

    raise_limit();
    for (int i = 0; i < MANY; i++) {
        epolls[i] = instance();
        sure("ADD", control(outer, EPOLL_CTL_ADD, epolls[i], EPOLLIN, (uint64_t)i));
    }
    printf("registered: %d\n", control_all(epolls, EPOLL_CTL_ADD, fd, EPOLLIN));
    printf("changed: %d\n", control_all(epolls, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLRDHUP));
    connect_it(fd);
    printf("nested: %d\n", epoll_wait(outer, events, MANY, PATIENCE_MS));
    printf("ready: %d\n", count(epolls, EPOLLIN));
    printf("changed: %d\n", control_all(epolls, EPOLL_CTL_MOD, fd, EPOLLOUT));
    printf("ready: %d\n", count(epolls, EPOLLOUT));
    printf("taken out: %d\n", control_all(epolls, EPOLL_CTL_DEL, fd, 0));
    printf("nested: %d\n", epoll_wait(outer, events, MANY, 0));
}

static void by_child(void)
{
    int epoll = instance();
    int fd = tcp_socket(&address, 0);
    pid_t child = sure("fork", fork());

    if (child == 0) {
        add(epoll, fd, EPOLLIN);
        _exit(0);
    }
    sure("waitpid", waitpid(child, NULL, 0));
    crowd();
    connect_it(fd);
    say_events(epoll, "in", PATIENCE_MS);
}

struct sleeper {
    int epoll;
    atomic_int tid;
    struct epoll_event woken_by;
};

/* An edge of EPOLLHUP is what an unconnected socket has to tell. */
static void *sleep_there(void *argument)
{
    struct sleeper *sleeper = argument;
    struct epoll_event *event = &sleeper->woken_by;

    sleeper->tid = gettid();
    do {
        *event = (struct epoll_event){0};
        sure("epoll_wait", epoll_wait(sleeper->epoll, event, 1, PATIENCE_MS));
    } while (event->events & EPOLLHUP);
    return NULL;
}

static int is_asleep(int tid)
{
    char path[64];
    char text[256] = {0};
    const char *name_end;
    int fd;

    if (tid == 0)
        return 0;
    snprintf(path, sizeof(path), "/proc/self/task/%d/stat", tid);
    fd = sure("open", open(path, O_RDONLY));
    sure("read", (int)read(fd, text, sizeof(text) - 1));
    close(fd);
    name_end = strrchr(text, ')');
    return name_end != NULL && name_end[2] == 'S';
}

static void asleep(void)
{
    struct sleeper sleeper = {.epoll = instance()};
    int fd = tcp_socket(&address, 0);
    pthread_t thread;

    add(sleeper.epoll, fd, EPOLLIN | EPOLLET);
    if (pthread_create(&thread, NULL, sleep_there, &sleeper) != 0)
        _exit(SET_UP_FAILED);
    while (!is_asleep(sleeper.tid))
        sched_yield();
    connect_it(fd);
    pthread_join(thread, NULL);
    printf("woken: %#x %llx\n", sleeper.woken_by.events,
           (unsigned long long)sleeper.woken_by.data.u64);
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {
        {"oneshot", oneshot},  {"closed", closed},    {"reused", reused}, {"anew", anew},
        {"thread", by_thread}, {"daemon", by_daemon}, {"last", last},     {"raced", raced},
        {"many", many},        {"child", by_child},   {"asleep", asleep},
    };

    (void)argc;
    setvbuf(stdout, NULL, _IOLBF, 0);
    address = address_of(argv[2], argv[3]);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run();
            return 0;
        }
    return SET_UP_FAILED;
}
