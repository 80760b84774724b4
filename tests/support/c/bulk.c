/* bulk.c - bulk SCENARIO HOST PORT [OWN_PORT]: what happens to a recvmmsg() or sendmmsg() that is not over yet
 *
 * handler, restart: a signal, with or without SA_RESTART, after the first datagram
 * refused: the peer, which is ours at OWN_PORT and is called by HOST and PORT, goes after the first datagram
 * send: another process connects to HOST and PORT meanwhile
 * That something was received is known by the queue, which is empty then. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "say.h"

#define N 1024 /* as many as one call takes */
#define LONG_S 1000
#define LATER_NS 50000000

static struct address server;

static int udp_socket(void)
{
    return sure("socket", socket(server.family, SOCK_DGRAM, 0));
}

static int n_queued(int fd)
{
    int n = 0;

    sure("FIONREAD", ioctl(fd, FIONREAD, &n));
    return n;
}

static int64_t now_ns(void)
{
    struct timespec now;

    sure("clock_gettime", clock_gettime(CLOCK_MONOTONIC, &now));
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

/* All messages share a buffer. */
static struct mmsghdr *messages_of(struct mmsghdr *messages, unsigned n)
{
    static char byte;
    static struct iovec part = {&byte, 1};

    for (unsigned i = 0; i < n; i++)
        messages[i] = (struct mmsghdr){.msg_hdr = {.msg_iov = &part, .msg_iovlen = 1}};
    return messages;
}

static void start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    if (pthread_create(thread, NULL, run, argument) != 0)
        sure("pthread_create", -1);
}

/* --- a signal ---------------------------------------------------------------------------------------------- */

struct interrupter {
    int fd;
    pthread_t whom;
    int64_t taken_ns; /* then the queue was empty */
};

static volatile sig_atomic_t n_handled;

static void handle(int signo)
{
    (void)signo;
    n_handled++;
}

static void *interrupt(void *argument)
{
    struct interrupter *self = argument;

    while (n_queued(self->fd) > 0)
        sched_yield();
    self->taken_ns = now_ns();
    while (now_ns() < self->taken_ns + LATER_NS)
        sched_yield();
    pthread_kill(self->whom, SIGUSR1);
    return NULL;
}

static void interrupted(int restart, int with_time)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = restart ? SA_RESTART : 0};
    struct mmsghdr messages[3];
    struct timespec left = {.tv_sec = LONG_S};
    struct interrupter other = {.fd = udp_socket(), .whom = pthread_self()};
    int64_t begin_ns = now_ns();
    int64_t left_ns;
    pthread_t thread;

    n_handled = 0;
    sure("sigaction", sigaction(SIGUSR1, &action, NULL));
    say_count("send", sendto(other.fd, "", 0, 0, sockaddr_of(&server), server.length));
    wait_for(other.fd, POLLIN);
    start(&thread, interrupt, &other);
    say_count("receive",
              recvmmsg(other.fd, messages_of(messages, 3), 3, 0, with_time ? &left : NULL));
    pthread_join(thread, NULL);
    printf("handled: %d\n", (int)n_handled);
    /* what is left was left when the datagram came, not when the signal did */
    left_ns = (int64_t)left.tv_sec * 1000000000 + left.tv_nsec;
    printf("left: %s\n",
           left_ns >= LONG_S * 1000000000LL - (other.taken_ns - begin_ns) ? "all" : "less");
    close(other.fd);
}

/* --- an error ---------------------------------------------------------------------------------------------- */

struct leaver {
    int fd;
    int peer_fd;
    ssize_t n_sent;
};

static void *leave(void *argument)
{
    struct leaver *self = argument;

    while (n_queued(self->fd) > 0)
        sched_yield();
    close(self->peer_fd);
    self->n_sent = send(self->fd, "x", 1, 0);
    return NULL;
}

static int receive_until_refused(const char *own_port)
{
    struct address here = address_of("127.0.0.1", own_port);
    struct mmsghdr messages[3];
    struct leaver other = {.fd = udp_socket(), .peer_fd = udp_socket()};
    struct sockaddr_storage source;
    socklen_t length = sizeof(source);
    pthread_t thread;
    char byte;

    sure("bind", bind(other.peer_fd, sockaddr_of(&here), here.length));
    say(dial(other.fd, &server), "connect");
    say_count("send", send(other.fd, "x", 1, 0));
    wait_for(other.peer_fd, POLLIN);
    sure("recvfrom",
         (int)recvfrom(other.peer_fd, &byte, 1, 0, (struct sockaddr *)&source, &length));
    sure("connect", connect(other.peer_fd, (struct sockaddr *)&source, length));
    sure("send", (int)send(other.peer_fd, "x", 1, 0));
    wait_for(other.fd, POLLIN);
    start(&thread, leave, &other);
    say_count("receive", recvmmsg(other.fd, messages_of(messages, 3), 3, 0, NULL));
    pthread_join(thread, NULL);
    printf("sent to one who has left: %zd\n", other.n_sent);
    return other.fd;
}

static void refused(const char *own_port)
{
    struct sockaddr_storage source;
    socklen_t length = sizeof(source);
    struct mmsghdr messages[3];
    char byte;
    int fd = receive_until_refused(own_port);

    printf("error: %s\n", name_of(socket_error(fd)));
    printf("again: %s\n", name_of(socket_error(fd)));
    close(fd);
    fd = receive_until_refused(own_port);
    say_count("receive one",
              recvfrom(fd, &byte, 1, MSG_DONTWAIT, (struct sockaddr *)&source, &length));
    close(fd);
    fd = receive_until_refused(own_port);
    say_count("receive more", recvmmsg(fd, messages_of(messages, 3), 3, MSG_DONTWAIT, NULL));
    close(fd);
    fd = receive_until_refused(own_port);
    say_count("receive none", recvmmsg(fd, messages, 0, 0, NULL));
    say_count("receive more", recvmmsg(fd, messages_of(messages, 3), 3, MSG_DONTWAIT, NULL));
    close(fd);
}

/* --- others ------------------------------------------------------------------------------------------------- */

/* How many messages are through; their lengths are written one by one. */
static unsigned n_done(const volatile struct mmsghdr *messages)
{
    unsigned n = 0;

    while (n < N && messages[n].msg_len != UINT32_MAX)
        n++;
    return n;
}

static void mark_all(struct mmsghdr *messages)
{
    for (unsigned i = 0; i < N; i++)
        messages[i].msg_len = UINT32_MAX;
}

/* Connects to HOST and PORT in the middle of the parent's call. Return: whether it did. */
static int connects_between(const struct mmsghdr *messages)
{
    int fd = tcp_socket(&server, 0);
    int between;

    while (n_done(messages) == 0)
        sched_yield();
    sure("connect", dial(fd, &server));
    between = n_done(messages) < N;
    close(fd);
    return between;
}

static struct mmsghdr *shared_messages(void)
{
    void *at = mmap(NULL, N * sizeof(struct mmsghdr), PROT_READ | PROT_WRITE,
                    MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (at == MAP_FAILED)
        sure("mmap", -1);
    return messages_of(at, N);
}

/* Until another has had its turn once; each call takes all of its messages. */
static void send_and_connect(void)
{
    struct mmsghdr *messages = shared_messages();
    int fd = udp_socket();
    int between = 0;

    for (unsigned i = 0; i < N; i++) {
        messages[i].msg_hdr.msg_name = &server.storage;
        messages[i].msg_hdr.msg_namelen = server.length;
    }
    while (!between) {
        int status;
        pid_t child;

        mark_all(messages);
        child = sure("fork", fork());
        if (child == 0)
            _exit(connects_between(messages));
        if (sendmmsg(fd, messages, N, 0) != N)
            sure("sendmmsg", -1);
        sure("waitpid", waitpid(child, &status, 0));
        if (WEXITSTATUS(status) == SET_UP_FAILED)
            _exit(SET_UP_FAILED);
        between = WEXITSTATUS(status);
    }
    puts("connected in between");
}

int main(int argc, char **argv)
{
    const char *scenario = argv[1];

    server = address_of(argv[2], argv[3]);
    if (strcmp(scenario, "send") == 0) {
        send_and_connect();
    } else if (strcmp(scenario, "refused") == 0 && argc > 4) {
        refused(argv[4]);
    } else {
        interrupted(strcmp(scenario, "restart") == 0, 0);
        interrupted(strcmp(scenario, "restart") == 0, 1);
    }
    return 0;
}
