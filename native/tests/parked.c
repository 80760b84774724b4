/* Parked registrations: answered as the kernel would, carried out for the file that they turn out to be about,
 * bounded, and given up with their socket. The program is this process; answers are caught. */
#include <sys/epoll.h>

#include "check.h"

static int last_answer;

static bool is_alive_here(const struct mfd_notification *call)
{
    return call != NULL;
}

static void catch_error(struct mfd_agent *agent, const struct mfd_notification *call, int error)
{
    (void)agent;
    (void)call;
    last_answer = error;
}

static void catch_continue(struct mfd_agent *agent, const struct mfd_notification *call)
{
    (void)agent;
    (void)call;
    last_answer = 1;
}

#define mfd_notify_is_alive(call) is_alive_here(call)
#define mfd_answer(agent, call, error) catch_error(agent, call, error)
#define mfd_answer_continue(agent, call) catch_continue(agent, call)
#include "../parked.c"
#undef mfd_notify_is_alive
#undef mfd_answer
#undef mfd_answer_continue

#define REGISTERED_MAX (MFD_KNOWN_BITS / 4) /* KNOWN_MAX of known.c */
#define COOKIE 0xfedcba9876543210u

static struct mfd_agent agent;
static struct mfd_stats stats;
static uint64_t now_ns = MFD_NS_PER_S; /* when the calls come */

static void open_agent(void)
{
    memset(&agent, 0, sizeof(agent));
    agent.control.fd = -1;
    agent.stats = &stats;
    NEED(mfd_parked_open(&agent.parked) == 0);
}

/* Return: what epoll_ctl() was answered; 1: it is the kernel's. */
static int control(int epoll_fd, int op, int fd, uint32_t events)
{
    struct epoll_event event = {.events = events, .data.u64 = COOKIE};
    struct mfd_notification call = {
        .listener = -1,
        .received_ns = now_ns,
        .pid = getpid(),
        .call = {.args = {(uint32_t)epoll_fd, (uint32_t)op, (uint32_t)fd, (uintptr_t)&event}},
    };

    mfd_epoll_ctl_handle(&agent, &call);
    return last_answer;
}

static int tcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    NEED(fd >= 0);
    return fd;
}

static int epoll_instance(void)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);

    NEED(fd >= 0);
    return fd;
}

static void answers_are_the_kernels(void)
{
    int epoll_fd = epoll_instance();
    int fd = tcp_socket();
    int other = dup(fd);
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);

    open_agent();
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_MOD, fd, EPOLLIN), 1);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_DEL, fd, EPOLLIN), 1);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLOUT), -EEXIST);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, other, EPOLLIN | EPOLLEXCLUSIVE), 0);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_MOD, other, EPOLLIN), -EINVAL);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_MOD, fd, EPOLLIN | EPOLLEXCLUSIVE), -EINVAL);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_MOD, fd, EPOLLOUT), 0);
    CHECK_EQ(agent.parked.n, 2);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_DEL, other, 0), 0);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_DEL, other, 0), 1);
    CHECK_EQ(agent.parked.n, 1);
    /* what the kernel has to refuse */
    CHECK_EQ(control(file, EPOLL_CTL_ADD, fd, EPOLLIN), 1);
    CHECK_EQ(control(-1, EPOLL_CTL_ADD, fd, EPOLLIN), 1);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, file, EPOLLIN), 1);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, -1, EPOLLIN), 1);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, epoll_fd, EPOLLIN), 1);
    CHECK_EQ(control(epoll_fd, 9, fd, EPOLLIN), 1);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, other, EPOLLEXCLUSIVE | EPOLLONESHOT), 1);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_DEL, fd, 0), 0);
    (void)close(epoll_fd);
    (void)close(fd);
    (void)close(other);
    (void)close(file);
}

/* By another thread, after it was looked at. */
static void what_has_been_put_in_the_place_of_an_instance_is_not_held(void)
{
    int fd = tcp_socket();
    int file = open("/dev/null", O_RDONLY | O_CLOEXEC);
    const struct mfd_parked_request request = {.pid = getpid(),
                                               .epoll_fd = file,
                                               .fd = fd,
                                               .own_fd = fd,
                                               .cookie = mfd_socket_cookie(fd),
                                               .now_ns = now_ns};
    unsigned before;

    open_agent();
    mfd_target_forget_all();
    before = count_open_fds();
    CHECK_EQ(mfd_parked_put(&agent.parked, &request), -EINVAL);
    CHECK_EQ(agent.parked.n_fds, 0);
    mfd_target_forget_all();
    CHECK_EQ(count_open_fds(), before);
    (void)close(fd);
    (void)close(file);
}

/* Number and data are the program's; only then is the socket in the instance. */
static void what_takes_its_place_is_registered(void)
{
    int epoll_fd = epoll_instance();
    int same_epoll_fd = dup(epoll_fd);
    int fd = tcp_socket();
    uint64_t cookie = mfd_socket_cookie(fd);
    struct epoll_event event = {0};
    int pair[2];

    open_agent();
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_EQ(control(same_epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN), -EEXIST);
    CHECK_EQ(mfd_epoll_has(getpid(), epoll_fd, fd), 0);
    CHECK_EQ(epoll_wait(epoll_fd, &event, 1, 0), 0);
    NEED(dup2(pair[0], fd) == fd && close(pair[0]) == 0); /* as the agent would, by SETFD */
    mfd_parked_replace(&agent, cookie, fd);
    CHECK_EQ(agent.parked.n, 0);
    CHECK_EQ(mfd_epoll_has(getpid(), epoll_fd, fd), 1);
    CHECK_EQ(write(pair[1], "x", 1), 1);
    CHECK_EQ(epoll_wait(epoll_fd, &event, 1, 0), 1);
    CHECK_EQ(event.events, EPOLLIN);
    CHECK(event.data.u64 == COOKIE);
    (void)close(epoll_fd);
    (void)close(same_epoll_fd);
    (void)close(pair[1]);
    (void)close(fd);
}

static void a_socket_that_stays_is_known_to_be_registered(void)
{
    int epoll_fd = epoll_instance();
    int fd = tcp_socket();
    int stranger = tcp_socket();

    open_agent();
    CHECK(!mfd_known_has(&agent.parked.registered, fd));
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
    CHECK(!mfd_known_has(&agent.parked.registered, fd));
    mfd_parked_settle(&agent, getpid(), stranger);
    CHECK_EQ(agent.parked.n, 1);
    mfd_parked_settle(&agent, getpid(), fd);
    CHECK_EQ(agent.parked.n, 0);
    CHECK_EQ(mfd_epoll_has(getpid(), epoll_fd, fd), 1);
    CHECK(mfd_known_has(&agent.parked.registered, fd));
    CHECK(!mfd_known_has(&agent.parked.registered, stranger));
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN), 1); /* EEXIST, says the kernel */
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_MOD, fd, EPOLLOUT), 1);
    (void)close(epoll_fd);
    (void)close(fd);
    (void)close(stranger);
}

/* It keeps the newest by being forgotten itself, half after half. */
static void what_is_known_is_bounded(void)
{
    int fd = tcp_socket();

    open_agent();
    mfd_known_add(&agent.parked.registered, mfd_socket_cookie(fd));
    for (uint64_t cookie = 1; cookie <= REGISTERED_MAX; cookie++)
        mfd_known_add(&agent.parked.registered, cookie << 40);
    CHECK(mfd_known_has(&agent.parked.registered, fd));
    for (uint64_t cookie = 1; cookie <= REGISTERED_MAX; cookie++)
        mfd_known_add(&agent.parked.registered, cookie << 40);
    CHECK_EQ(agent.parked.registered.n, 1);
    (void)close(fd);
}

static void there_is_room_for_so_many_and_what_is_gone_makes_room(void)
{
    static int fds[MFD_PARKED_MAX];
    unsigned before = (mfd_target_forget_all(), count_open_fds());
    int epoll_fd = epoll_instance();
    int one_more = tcp_socket();

    open_agent();
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++) {
        fds[i] = tcp_socket();
        NEED(control(epoll_fd, EPOLL_CTL_ADD, fds[i], EPOLLIN) == 0);
    }
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, one_more, EPOLLIN), 1);
    CHECK(mfd_known_has(&agent.parked.registered, one_more));
    (void)close(fds[7]);
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, one_more, EPOLLIN), 1); /* looked a moment ago */
    now_ns += MFD_NS_PER_S;
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, one_more, EPOLLIN), 0);
    CHECK_EQ(agent.parked.n, MFD_PARKED_MAX);
    for (unsigned i = 0; i < MFD_PARKED_MAX; i++)
        (void)close(fds[i]);
    (void)close(one_more);
    (void)close(epoll_fd);
    mfd_parked_expire(&agent.parked, mfd_parked_next_ns(&agent.parked) - 1);
    CHECK_EQ(agent.parked.n, MFD_PARKED_MAX);
    mfd_parked_expire(&agent.parked, mfd_parked_next_ns(&agent.parked));
    CHECK_EQ(agent.parked.n, 0);
    CHECK(mfd_parked_next_ns(&agent.parked) == UINT64_MAX);
    mfd_target_forget_all();
    CHECK_EQ(count_open_fds(), before); /* the instance is given up with its last registration */
}

/* Where the agent may have few fds, most of them stay for other things. */
static void fds_are_left(void)
{
    int epoll_fds[8];
    int fd = tcp_socket();

    open_agent();
    agent.parked.fds_max = 5;
    for (int i = 0; i < 8; i++) {
        epoll_fds[i] = epoll_instance();
        CHECK_EQ(control(epoll_fds[i], EPOLL_CTL_ADD, fd, EPOLLIN), i < 4 ? 0 : 1);
    }
    CHECK_EQ(agent.parked.n_fds, 5);
    CHECK_EQ(control(epoll_fds[0], EPOLL_CTL_DEL, fd, 0), 0);
    CHECK_EQ(agent.parked.n_fds, 4);
    CHECK_EQ(control(epoll_fds[7], EPOLL_CTL_ADD, fd, EPOLLIN), 0);
    (void)close(fd);
    for (int i = 0; i < 8; i++)
        (void)close(epoll_fds[i]);
    mfd_parked_expire(&agent.parked, UINT64_MAX);
    CHECK_EQ(agent.parked.n_fds, 0);
}

/* Whatever the order in which they come and go, each registration is in its own instance. */
static void many_instances_are_told_apart(void)
{
    enum {
        N = 200
    };
    static int epoll_fds[N];
    int fds[2] = {tcp_socket(), tcp_socket()};

    open_agent();
    for (int i = 0; i < N; i++)
        epoll_fds[i] = epoll_instance();
    for (int i = 0; i < N; i++)
        CHECK_EQ(control(epoll_fds[i * 37 % N], EPOLL_CTL_ADD, fds[i % 2], EPOLLIN), 0);
    for (int i = 0; i < N; i += 3)
        CHECK_EQ(control(epoll_fds[i * 37 % N], EPOLL_CTL_DEL, fds[i % 2], 0), 0);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(control(epoll_fds[i * 37 % N], EPOLL_CTL_MOD, fds[i % 2], EPOLLOUT), i % 3 == 0);
        CHECK_EQ(control(epoll_fds[i * 37 % N], EPOLL_CTL_MOD, fds[1 - i % 2], EPOLLOUT), 1);
    }
    mfd_parked_settle(&agent, getpid(), fds[0]);
    mfd_parked_settle(&agent, getpid(), fds[1]);
    CHECK_EQ(agent.parked.n + agent.parked.n_fds + agent.parked.n_instances, 0);
    for (int i = 0; i < N; i++) {
        CHECK_EQ(mfd_epoll_has(getpid(), epoll_fds[i * 37 % N], fds[i % 2]), i % 3 != 0);
        CHECK_EQ(mfd_epoll_has(getpid(), epoll_fds[i * 37 % N], fds[1 - i % 2]), 0);
    }
    for (int i = 0; i < N; i++)
        (void)close(epoll_fds[i]);
    (void)close(fds[0]);
    (void)close(fds[1]);
}

/* Not its number, nor who made it: the kernel keeps a registration for as long as somebody has the file. */
static void it_lasts_as_long_as_its_file(void)
{
    int epoll_fd = epoll_instance();
    int fd = tcp_socket();
    int other = dup(fd);

    open_agent();
    CHECK_EQ(control(epoll_fd, EPOLL_CTL_ADD, fd, EPOLLIN), 0);
    (void)close(fd);
    mfd_parked_expire(&agent.parked, UINT64_MAX);
    CHECK_EQ(agent.parked.n, 1);
    (void)close(other);
    mfd_parked_expire(&agent.parked, UINT64_MAX);
    CHECK_EQ(agent.parked.n, 0);
    (void)close(epoll_fd);
}

int main(void)
{
    struct rlimit limit;

    NEED(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    NEED(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    answers_are_the_kernels();
    what_has_been_put_in_the_place_of_an_instance_is_not_held();
    what_takes_its_place_is_registered();
    a_socket_that_stays_is_known_to_be_registered();
    what_is_known_is_bounded();
    there_is_room_for_so_many_and_what_is_gone_makes_room();
    fds_are_left();
    many_instances_are_told_apart();
    it_lasts_as_long_as_its_file();
    return check_result();
}
