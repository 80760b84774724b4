/* A socket for a program in another cgroup: what comes of it when no process can be born there. */
#include <sys/wait.h>

#include "check.h"

static char path[] = "/none";
static struct mfd_agent agent = {.cgroup = {.fd = -1}, .netns = {.own_fd = -1}};

/* The id of a process that was. */
static pid_t gone(void)
{
    pid_t pid = fork();

    NEED(pid >= 0);
    if (pid == 0)
        _exit(0);
    NEED(waitpid(pid, NULL, 0) == pid);
    return pid;
}

static int birth(pid_t pid, uint32_t netns, int protocol)
{
    const struct mfd_wish wish = {
        .pid = pid,
        .is_here = mfd_cgroup_has(&agent.cgroup, pid),
        .netns = netns,
        .domain = AF_INET,
        .type = SOCK_STREAM,
        .protocol = protocol,
    };

    return mfd_birth(&agent, &wish);
}

static void where_no_cgroup_is_found_it_says_so(void)
{
    CHECK_EQ(birth(gone(), MFD_NETNS_OWN, 0), -EAGAIN);
}

static void in_our_own_cgroup_it_is_socket_s_error(void)
{
    CHECK_EQ(birth(getpid(), MFD_NETNS_OWN, IPPROTO_UDP), -EPROTONOSUPPORT);
    CHECK_EQ(birth(getpid(), MFD_NETNS_IPV4, 0), -ENETUNREACH);
}

int main(void)
{
    in_our_own_cgroup_it_is_socket_s_error(); /* whose directory is not known: all are in it */
    agent.cgroup.fd = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC); /* has others below it */
    agent.cgroup.path = path;
    NEED(agent.cgroup.fd >= 0);
    where_no_cgroup_is_found_it_says_so();
    return check_result();
}
