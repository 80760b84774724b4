/* sharing.c - sharing MODE HOST PORT: who makes a socket is not who connects it
 *
 * dup, fork, parent, exec, pass, threads: see each function. late: connects when any lease on the new
 * socket is long over. Each prints the greeting that came over the connection. */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/wait.h>

#include "say.h"

#define LONGER_THAN_A_LEASE_US 400000
#define DATA 0x1234567812345678u

static const char *self;
static struct address address;
static char **words; /* HOST PORT */

static void end_of(pid_t child)
{
    int status = 0;

    sure("waitpid", waitpid(child, &status, 0));
    printf("child: %d\n", status);
}

/* A duplicate that sits in an epoll instance sees the connection made through the original. */
static void by_dup(void)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u64 = DATA}};
    int epoll = sure("epoll_create1", epoll_create1(0));
    int fd = tcp_socket(&address, 0);
    int copy = sure("dup", dup(fd));

    sure("epoll_ctl", epoll_ctl(epoll, EPOLL_CTL_ADD, copy, &event));
    say(dial(fd, &address), "connect");
    close(fd);
    event.data.u64 = 0;
    while (epoll_wait(epoll, &event, 1, PATIENCE_MS) == 1 && (event.events & EPOLLIN) == 0)
        continue;
    printf("event: %s\n", event.data.u64 == DATA ? "ours" : "strange");
    say_rest(copy, "greeting");
}

static void by_fork(void)
{
    int fd = tcp_socket(&address, 0);
    pid_t child = sure("fork", fork());

    if (child == 0) {
        say(dial(fd, &address), "connect");
        _exit(0);
    }
    end_of(child);
    say_rest(fd, "greeting");
}

static void by_parent(void)
{
    int fd = tcp_socket(&address, 0);
    int go[2];
    pid_t child;

    sure("pipe", pipe(go));
    child = sure("fork", fork());
    if (child == 0) {
        char byte;

        sure("read", (int)read(go[0], &byte, 1));
        say_rest(fd, "greeting");
        _exit(0);
    }
    say(dial(fd, &address), "connect");
    sure("write", (int)write(go[1], "", 1));
    end_of(child);
}

static void by_exec(void)
{
    char number[16];
    int fd = tcp_socket(&address, 0);

    snprintf(number, sizeof(number), "%d", fd);
    execl(self, self, "image", words[0], words[1], number, (char *)NULL);
    sure("exec", -1);
}

static void send_fd(int channel, int fd)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    struct iovec byte = {.iov_base = "", .iov_len = 1};
    struct msghdr message = {.msg_iov = &byte,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    struct cmsghdr *rights = CMSG_FIRSTHDR(&message);

    rights->cmsg_level = SOL_SOCKET;
    rights->cmsg_type = SCM_RIGHTS;
    rights->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(rights), &fd, sizeof(fd));
    sure("sendmsg", (int)sendmsg(channel, &message, 0));
}

static int receive_fd(int channel)
{
    char control[CMSG_SPACE(sizeof(int))] = {0};
    char byte;
    struct iovec into = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &into,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};
    int fd = -1;

    sure("recvmsg", (int)recvmsg(channel, &message, 0));
    memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&message)), sizeof(fd));
    return fd;
}

/* The maker passes the socket on, closes it and has ended before the receiver connects it. */
static void by_passing(void)
{
    int channel[2];
    pid_t maker;
    int fd;

    sure("socketpair", socketpair(AF_UNIX, SOCK_STREAM, 0, channel));
    maker = sure("fork", fork());
    if (maker == 0) {
        send_fd(channel[0], tcp_socket(&address, 0));
        _exit(0);
    }
    end_of(maker);
    fd = receive_fd(channel[1]);
    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
}

static void *connect_there(void *argument)
{
    say(dial(*(int *)argument, &address), "connect");
    return NULL;
}

static void by_threads(void)
{
    int fd = tcp_socket(&address, 0);
    pthread_t thread;

    sure("pthread_create", -pthread_create(&thread, NULL, connect_there, &fd));
    sure("pthread_join", -pthread_join(thread, NULL));
    say_rest(fd, "greeting");
}

static void later(void)
{
    int fd = tcp_socket(&address, 0);

    usleep(LONGER_THAN_A_LEASE_US);
    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
}

static void image(void)
{
    int fd = atoi(words[2]);

    say(dial(fd, &address), "connect");
    say_rest(fd, "greeting");
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*run)(void);
    } modes[] = {
        {"dup", by_dup},      {"fork", by_fork},       {"parent", by_parent}, {"exec", by_exec},
        {"pass", by_passing}, {"threads", by_threads}, {"late", later},       {"image", image},
    };

    (void)argc;
    self = argv[0];
    words = argv + 2;
    address = address_of(words[0], words[1]);
    for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
        if (strcmp(argv[1], modes[i].name) == 0) {
            modes[i].run();
            return 0;
        }
    return SET_UP_FAILED;
}
