/* full.c - full SCENARIO HOST PORT: sends that have to wait, because what was sent before has not left
 *
 * timeout: SO_SNDTIMEO ends them              room: until what was sent leaves, which the test sees to
 * handler, restart: a signal, with or without SA_RESTART
 *
 * full count N HOST PORT LAST_HOST LAST_PORT: N datagrams to the first address, for which there is room; then one,
 * which has to wait, to the last. */
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/syscall.h>
#include <sys/time.h>

#include "say.h"

#define N 20 /* more than there is room for */
#define TIMEOUT_US 100000

static struct address server;
static volatile struct mmsghdr messages[N];

/* With as little room as there can be. */
static int udp_socket(void)
{
    int fd = sure("socket", socket(server.family, SOCK_DGRAM, 0));

    sure("SO_SNDBUF", setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &(int){1}, sizeof(int)));
    return fd;
}

static ssize_t send_one(int fd, int flags)
{
    return sendto(fd, "x", 1, flags, sockaddr_of(&server), server.length);
}

static int send_many(int fd, int flags)
{
    static char byte = 'x';
    static struct iovec part = {&byte, 1};

    for (int i = 0; i < N; i++)
        messages[i] = (struct mmsghdr){
            .msg_hdr = {.msg_name = &server.storage,
                        .msg_namelen = server.length,
                        .msg_iov = &part,
                        .msg_iovlen = 1},
            .msg_len = UINT32_MAX,
        };
    return sendmmsg(fd, (struct mmsghdr *)messages, N, flags);
}

static ssize_t send_message(int fd)
{
    struct iovec part = {"x", 1};
    struct msghdr message = {.msg_name = &server.storage,
                             .msg_namelen = server.length,
                             .msg_iov = &part,
                             .msg_iovlen = 1};

    return sendmsg(fd, &message, 0);
}

/* Return: how many find room. */
static int fill(int fd)
{
    int n = 0;

    while (send_one(fd, MSG_DONTWAIT) == 1)
        n++;
    if (errno != EAGAIN)
        sure("fill", -1);
    return n;
}

/* --- time --------------------------------------------------------------------------------------------------- */

static void timed_out(void)
{
    const struct timeval timeout = {.tv_usec = TIMEOUT_US};
    int fd = udp_socket();

    sure("SO_SNDTIMEO", setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout)));
    say_count("send many", send_many(fd, 0));
    say_count("send many, again", send_many(fd, 0));
    say_count("send", send_one(fd, 0));
    say_count("send a message", send_message(fd));
    say_count("send at once", send_one(fd, MSG_DONTWAIT));
    printf("is there room: %d\n", poll(&(struct pollfd){.fd = fd, .events = POLLOUT}, 1, 0));
    printf("error: %s\n", name_of(socket_error(fd)));
}

/* --- signals and room ---------------------------------------------------------------------------------------- */

static struct {
    pthread_t whom;
    pid_t tid;
    int n_room;
    int is_single; /* else it has progress to look at */
    int signal;    /* 0: say so, and the test makes room */
} other;

static void handle(int signo)
{
    static const char text[] = "handled\n";

    (void)signo;
    if (write(STDOUT_FILENO, text, sizeof(text) - 1) < 0)
        _exit(SET_UP_FAILED);
}

/* The main thread, which has nothing to do but its call, sleeps. */
static int sleeps(void)
{
    char path[64];
    char text[16] = "running";
    int fd;

    snprintf(path, sizeof(path), "/proc/self/task/%d/syscall", (int)other.tid);
    fd = sure("syscall", open(path, O_RDONLY));
    sure("read", (int)read(fd, text, sizeof(text) - 1));
    close(fd);
    return strncmp(text, "running", 7) != 0;
}

static void *act(void *argument)
{
    while (other.is_single ? !sleeps() : messages[other.n_room - 1].msg_len == UINT32_MAX)
        sched_yield();
    if (other.signal != 0)
        pthread_kill(other.whom, other.signal);
    else
        say(0, "full");
    return argument;
}

static void start(pthread_t *thread, int is_single, int signo)
{
    other.is_single = is_single;
    other.signal = signo;
    for (int i = 0; i < N; i++)
        messages[i].msg_len = UINT32_MAX;
    if (pthread_create(thread, NULL, act, NULL) != 0)
        sure("pthread_create", -1);
}

static void until_there_is_room(int fd)
{
    pthread_t thread;

    start(&thread, 0, 0);
    say_count("send many", send_many(fd, 0));
    pthread_join(thread, NULL);
}

static void interrupted(int fd, int restart)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = restart ? SA_RESTART : 0};
    pthread_t thread;

    sure("sigaction", sigaction(SIGUSR1, &action, NULL));
    start(&thread, 0, SIGUSR1);
    say_count("send many", send_many(fd, 0));
    pthread_join(thread, NULL);
    start(&thread, 1, SIGUSR1);
    say_count("send", send_one(fd, 0));
    pthread_join(thread, NULL);
}

/* --- counts ------------------------------------------------------------------------------------------------- */

static void count(char **words)
{
    int n = atoi(words[0]);
    int fd;

    server = address_of(words[1], words[2]);
    fd = udp_socket();
    for (int i = 0; i < n; i++)
        if (send_one(fd, 0) != 1)
            sure("send", -1);
    server = address_of(words[3], words[4]);
    say_count("send", send_one(fd, 0));
    say_count("send more", send_many(fd, 0));
    (void)wait_line(); /* the test looks at what was counted */
}

int main(int argc, char **argv)
{
    const char *scenario = argv[1];

    setvbuf(stdout, NULL, _IOLBF, 0);
    if (strcmp(scenario, "count") == 0 && argc > 6) {
        count(argv + 2);
        return 0;
    }
    server = address_of(argv[2], argv[3]);
    other.whom = pthread_self();
    other.tid = getpid();
    other.n_room = fill(udp_socket());
    printf("room: %d\n", other.n_room);
    if (strcmp(scenario, "timeout") == 0)
        timed_out();
    else if (strcmp(scenario, "room") == 0)
        until_there_is_room(udp_socket());
    else
        interrupted(udp_socket(), strcmp(scenario, "restart") == 0);
    return 0;
}
