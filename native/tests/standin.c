/* Replacing: every number of the socket gets the stand-in, nothing else does, and what has no second holder is not
 * looked for. The program is this process. */
#include "check.h"

static unsigned n_looks;
static int swap_at = -1; /* a number that another thread takes while the call is handled */
static int swap_in;
static int waited_at =
    -1; /* a thread waits; and another takes this number when we have seen that */

static bool is_alive_here(const struct mfd_notification *call)
{
    if (swap_at >= 0)
        NEED(dup2(swap_in, swap_at) == swap_at);
    return call != NULL;
}

static int replace_here(int fd, int at_fd, bool cloexec)
{
    return dup3(fd, at_fd, cloexec ? O_CLOEXEC : 0) < 0 ? -errno : at_fd;
}

static bool look(const struct mfd_watch *watch, pid_t pid, int fd)
{
    n_looks++;
    return mfd_watch_is_at(watch, pid, fd);
}

static bool waits_here(void)
{
    if (waited_at >= 0)
        NEED(dup2(swap_in, waited_at) == waited_at);
    return waited_at >= 0;
}

#define mfd_notify_is_alive(call) is_alive_here(call)
#define mfd_waiters_exist(pid, fds, n_fds) ((void)(pid), (void)(fds), (void)(n_fds), waits_here())
#define mfd_replace_fd(call, fd, at_fd, cloexec) ((void)(call), replace_here(fd, at_fd, cloexec))
#define mfd_watch_is_at(watch, pid, fd) look(watch, pid, fd)
#include "../replace.c"
#include "../standin.c"
#undef mfd_notify_is_alive
#undef mfd_waiters_exist
#undef mfd_replace_fd
#undef mfd_watch_is_at

#define N_OTHERS 100
#define FEW_LOOKS 2

static struct mfd_agent agent;
static struct mfd_stats stats;

static void open_agent(void)
{
    memset(&agent, 0, sizeof(agent));
    agent.control.fd = -1;
    agent.stats = &stats;
    NEED(mfd_parked_open(&agent.parked) == 0);
    n_looks = 0;
}

static int tcp_socket(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    NEED(fd >= 0);
    return fd;
}

/* Connect number to one end of a pair. Return: the answer. */
static int replace_by(int number, int end_fd)
{
    struct mfd_attempt attempt = {
        .call = {.listener = -1, .pid = getpid(), .call = {.args = {(uint32_t)number}}},
        .sockaddr.in = {.sin_family = AF_INET},
        .meant = {.family = AF_INET, .port = 80, .bytes = {127, 0, 0, 1}},
    };
    int own_fd = fcntl(number, F_DUPFD_CLOEXEC, 0);

    NEED(own_fd >= 0);
    return mfd_standin_replace(&agent, &attempt, own_fd, end_fd, true);
}

static bool is_unix(int fd)
{
    int domain = 0;

    return mfd_socket_option(fd, SOL_SOCKET, SO_DOMAIN, &domain) == 0 && domain == AF_UNIX;
}

static void one_number_is_replaced_without_a_search(void)
{
    int others[N_OTHERS];
    int pair[2];
    unsigned before = (mfd_target_forget_all(), count_open_fds());
    int fd = tcp_socket();

    open_agent();
    for (int i = 0; i < N_OTHERS; i++)
        others[i] = tcp_socket();
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_EQ(replace_by(fd, pair[0]), 0);
    CHECK(is_unix(fd));
    CHECK(n_looks <= FEW_LOOKS);
    CHECK_EQ(agent.watched.due_ns, 0);
    for (int i = 0; i < N_OTHERS; i++) {
        CHECK(!is_unix(others[i]));
        (void)close(others[i]);
    }
    (void)close(fd);
    (void)close(pair[1]);
    mfd_target_forget_all();
    CHECK_EQ(count_open_fds(), before);
}

static void dups_are_replaced_each_with_its_own_flag(void)
{
    int pair[2];
    int fd = tcp_socket();
    int kept = dup(fd);
    int stranger = tcp_socket();

    open_agent();
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    CHECK_EQ(replace_by(fd, pair[0]), 0);
    CHECK(is_unix(fd) && is_unix(kept) && !is_unix(stranger));
    CHECK_EQ(fcntl(fd, F_GETFD), FD_CLOEXEC);
    CHECK_EQ(fcntl(kept, F_GETFD), 0);
    CHECK_EQ(agent.watched.due_ns, 0); /* nobody has the old one */
    (void)close(fd);
    (void)close(kept);
    (void)close(stranger);
    (void)close(pair[1]);
}

/* By another thread, between our first look and the replacement. */
static void what_has_been_put_at_the_number_stays(void)
{
    int pair[2];
    int ends[2];
    int fd = tcp_socket();
    int kept = dup(fd);

    open_agent();
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    NEED(pipe2(ends, O_CLOEXEC) == 0);
    swap_in = ends[0];
    swap_at = fd;
    CHECK_EQ(replace_by(fd, pair[0]), 0);
    swap_at = -1;
    CHECK_EQ(mfd_target_same_file(getpid(), fd, ends[0]), 1);
    CHECK(is_unix(kept));
    (void)close(fd);
    (void)close(kept);
    (void)close(pair[1]);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

/* The socket is put back from another of its numbers, which is something else by then. */
static void what_is_put_back_is_a_tcp_socket(void)
{
    int protocol = 0;
    int pair[2];
    int ends[2];
    int fd = tcp_socket();
    int kept = dup(fd);

    open_agent();
    NEED(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) == 0);
    NEED(pipe2(ends, O_CLOEXEC) == 0);
    swap_in = ends[0];
    waited_at = kept;
    CHECK_EQ(replace_by(fd, pair[0]), -ECONNREFUSED);
    waited_at = -1;
    CHECK_EQ(mfd_socket_option(fd, SOL_SOCKET, SO_PROTOCOL, &protocol), 0);
    CHECK_EQ(protocol, IPPROTO_TCP);
    CHECK_EQ(mfd_target_same_file(getpid(), kept, ends[0]), 1);
    (void)close(fd);
    (void)close(kept);
    (void)close(pair[1]);
    (void)close(ends[0]);
    (void)close(ends[1]);
}

int main(void)
{
    one_number_is_replaced_without_a_search();
    dups_are_replaced_each_with_its_own_flag();
    what_has_been_put_at_the_number_stays();
    what_is_put_back_is_a_tcp_socket();
    return check_result();
}
