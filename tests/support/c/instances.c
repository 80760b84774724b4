/* instances.c - instances N HOST PORT: one socket in N epoll instances before it is connected
 *
 * All of the instances are in another one. Said is how many report the socket, with the data that was
 * given to each, and how many the outer one reports: once it is connected, after MOD, after DEL, and after
 * ADD. First of a blocking socket, then of a non-blocking one. The peer greets. */
#include <sys/epoll.h>
#include <sys/resource.h>

#include "say.h"

#define MOST 500
#define OTHER_DATA 1000000 /* more, as MOD has it */

static struct address address;
static int n_instances;
static int instances[MOST];
static int outer;

static int control(int epoll, int op, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {.events = events, .data.u64 = data};

    return epoll_ctl(epoll, op, fd, &event);
}

/* How many calls of this kind succeed, one in each instance. */
static void control_all(const char *step, int op, int fd, uint32_t events, uint64_t data)
{
    int n = 0;

    for (int i = 0; i < n_instances; i++)
        n += control(instances[i], op, fd, events, data + (uint64_t)i) == 0;
    printf("%s: %d\n", step, n);
}

/* How many say this, and nothing else, of the socket; how many the outer one names. */
static void say_events(const char *step, uint32_t events, uint64_t data)
{
    static struct epoll_event seen[MOST];
    int n = 0;

    for (int i = 0; i < n_instances; i++)
        n += epoll_wait(instances[i], seen, MOST, 0) == 1 && seen[0].events == events &&
             seen[0].data.u64 == data + (uint64_t)i;
    printf("%s: %d, ", step, n);
    printf("outside: %d\n", sure("epoll_wait", epoll_wait(outer, seen, MOST, 0)));
}

static void instance_by_instance(int flags)
{
    int fd = tcp_socket(&address, flags);

    outer = sure("epoll_create1", epoll_create1(0));
    for (int i = 0; i < n_instances; i++) {
        instances[i] = sure("epoll_create1", epoll_create1(0));
        sure("ADD", control(outer, EPOLL_CTL_ADD, instances[i], EPOLLIN, (uint64_t)i));
    }
    control_all("ADD", EPOLL_CTL_ADD, fd, EPOLLIN, 0);
    say(dial(fd, &address), "connect");
    wait_for(fd, POLLIN);
    say_events("connected", EPOLLIN, 0);
    control_all("ADD again", EPOLL_CTL_ADD, fd, EPOLLIN, 0);
    control_all("MOD", EPOLL_CTL_MOD, fd, EPOLLOUT, OTHER_DATA);
    say_events("after MOD", EPOLLOUT, OTHER_DATA);
    control_all("DEL", EPOLL_CTL_DEL, fd, 0, 0);
    say_events("after DEL", 0, 0);
    control_all("MOD", EPOLL_CTL_MOD, fd, EPOLLIN, 0);
    control_all("ADD", EPOLL_CTL_ADD, fd, EPOLLIN | EPOLLET, 0);
    say_events("after ADD", EPOLLIN, 0);
    say_events("edge", 0, 0);
    close(fd);
    control_all("MOD of a closed one", EPOLL_CTL_MOD, fd, EPOLLIN, 0);
    for (int i = 0; i < n_instances; i++)
        close(instances[i]);
    close(outer);
}

int main(int argc, char **argv)
{
    struct rlimit limit;

    (void)argc;
    n_instances = atoi(argv[1]);
    address = address_of(argv[2], argv[3]);
    sure("getrlimit", getrlimit(RLIMIT_NOFILE, &limit));
    limit.rlim_cur = limit.rlim_max;
    sure("setrlimit", setrlimit(RLIMIT_NOFILE, &limit));
    instance_by_instance(0);
    instance_by_instance(SOCK_NONBLOCK);
    return 0;
}
