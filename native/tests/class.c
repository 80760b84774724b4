/* Classes: which lines of /proc/PID/cgroup matter; and a bearer takes sockets and lets go of them, is replaced when it
 * was killed, and leaves nothing behind. That a socket has the class afterwards tests/live/test_belonging.py sees:
 * here a bearer goes nowhere, or to where nobody can. */
#include <dirent.h>

#include "lingering.h"

#include "../class.c"

static struct mfd_agent agent;
static const struct place nowhere; /* no lines: no cgroup to go to */

static void lines_matter_by_their_controllers(void)
{
    static const struct {
        const char *text;
        const char *expected;
    } cases[] = {
        {"", ""},
        {"0::/mesh.slice/shop\n", ""},
        {"4:net_cls,net_prio:/a:b\n3:name=net_cls:/c\n0::/\n", "net_cls,net_prio:/a:b\n"},
        {"12:net_prio:/p\n2:memory:/net_cls\n7:cpu,net_cls:/\n", "net_prio:/p\ncpu,net_cls:/\n"},
        {"7:net_cls2:/x\n6:net:/x\n5\n:net_cls\n", "net_cls\n"},
        {"7:net_cls:/cut", ""},
    };

    for (size_t i = 0; i < MFD_COUNT(cases); i++) {
        struct place place;

        check_about = cases[i].text;
        pick_lines(cases[i].text, &place);
        CHECK(strcmp(place.lines, cases[i].expected) == 0);
    }
    check_about = "";
}

static unsigned count_fds_of(pid_t pid)
{
    char path[32];
    struct dirent *entry;
    unsigned n = 0;
    DIR *fds;

    (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    fds = opendir(path);
    NEED(fds != NULL);
    while ((entry = readdir(fds)) != NULL)
        n += entry->d_name[0] != '.';
    NEED(closedir(fds) == 0);
    return n;
}

static void no_child_is_left(void)
{
    CHECK_EQ(waitid(P_ALL, 0, &(siginfo_t){0}, WEXITED | WNOHANG | __WALL), -1);
    CHECK_EQ(errno, ECHILD);
}

static void a_bearer_lets_go(void)
{
    struct pair pair = connected();
    char byte;

    for (unsigned i = 0; i < 3; i++)
        CHECK_EQ(give_class(&nowhere, pair.client), 0);
    CHECK(state.bearers[0].pid != 0);
    CHECK_EQ(state.bearers[1].asked_ns, 0);          /* one was enough */
    CHECK_EQ(count_fds_of(state.bearers[0].pid), 1); /* its channel */
    mfd_close_at(&pair.client);
    CHECK_EQ(recv(pair.server, &byte, 1, 0), 0);
    mfd_close_at(&pair.server);
}

static void one_that_was_killed_is_replaced(void)
{
    pid_t first = state.bearers[0].pid;
    struct pollfd ended = {.fd = state.bearers[0].pidfd, .events = POLLIN};

    NEED(kill(first, SIGKILL) == 0 && poll(&ended, 1, -1) == 1);
    CHECK_EQ(give_class(&nowhere, state.bearers[0].channel), 0);
    CHECK(state.bearers[0].pid != first);
}

static void one_that_does_not_answer_is_given_up(void)
{
    struct bearer *bearer = &state.bearers[0];

    NEED(kill(bearer->pid, SIGSTOP) == 0);
    NEED(waitid(P_PIDFD, (id_t)bearer->pidfd, &(siginfo_t){0}, WSTOPPED | __WALL) == 0);
    CHECK_EQ(give_class(&nowhere, bearer->channel), -ETIMEDOUT);
    CHECK_EQ(give_class(&nowhere, STDERR_FILENO),
             -ETIMEDOUT); /* not tried again before it expires */
    no_child_is_left();
}

static void it_leaves_when_nobody_asks(void)
{
    uint64_t due;

    CHECK_EQ(mfd_class_next_ns(), UINT64_MAX);
    NEED(give_class(&nowhere, STDERR_FILENO) == 0);
    due = mfd_class_next_ns();
    CHECK_EQ(due, state.bearers[0].asked_ns + KEPT_NS);
    mfd_class_expire(&agent, due - 1);
    CHECK_EQ(mfd_class_next_ns(), due);
    mfd_class_expire(&agent, due);
    CHECK_EQ(mfd_class_next_ns(), UINT64_MAX);
    no_child_is_left();
}

static void a_door_that_is_closed(void)
{
    struct bearer bearer = {.channel = -1, .pidfd = -1};
    int doors[HIERARCHIES_MAX] = {open("/dev/null", O_RDONLY | O_CLOEXEC), -1};

    NEED(doors[0] >= 0);
    CHECK_EQ(start_bearer(&bearer, doors), -EBADF);
    CHECK_EQ(bearer.channel, -1);
    CHECK_EQ(bearer.pid, 0);
    close_doors(doors);
    no_child_is_left();
}

static void it_goes_through_every_door(void)
{
    struct bearer bearer = {.channel = -1, .pidfd = -1};
    int ends[HIERARCHIES_MAX][2];
    int doors[HIERARCHIES_MAX];
    char text[8];

    for (unsigned i = 0; i < HIERARCHIES_MAX; i++) {
        NEED(pipe2(ends[i], O_CLOEXEC) == 0);
        doors[i] = ends[i][1];
    }
    CHECK_EQ(start_bearer(&bearer, doors), 0);
    CHECK_EQ(count_fds_of(bearer.pid), 1);
    close_doors(doors);
    for (unsigned i = 0; i < HIERARCHIES_MAX; i++) {
        CHECK_EQ(read(ends[i][0], text, sizeof(text)), 1);
        CHECK_EQ(text[0], '0');
        CHECK_EQ(read(ends[i][0], text, sizeof(text)), 0); /* nobody holds it open */
        mfd_close_at(&ends[i][0]);
    }
    dismiss(&bearer);
    no_child_is_left();
}

static void the_longest_unasked_makes_way(void)
{
    struct place places[BEARERS_MAX + 1];

    for (unsigned i = 0; i <= BEARERS_MAX; i++) {
        (void)snprintf(places[i].lines, sizeof(places[i].lines), "no_such_controller:/%u\n", i);
        CHECK_EQ(give_class(&places[i], STDERR_FILENO), -ENOENT);
    }
    CHECK(find(&places[0]) == NULL);
    CHECK(find(&places[1]) == &state.bearers[1]);
    CHECK(find(&places[BEARERS_MAX]) == &state.bearers[0]);
    mfd_class_forget();
    CHECK_EQ(mfd_class_next_ns(), UINT64_MAX);
}

int main(void)
{
    unsigned before = count_open_fds();

    agent.control.fd = -1;
    lines_matter_by_their_controllers();
    a_bearer_lets_go();
    one_that_was_killed_is_replaced();
    one_that_does_not_answer_is_given_up();
    mfd_class_forget();
    it_leaves_when_nobody_asks();
    a_door_that_is_closed();
    it_goes_through_every_door();
    the_longest_unasked_makes_way();
    CHECK_EQ(count_open_fds(), before);
    return check_result();
}
