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

static void where_no_cgroup_is_found_it_says_so(void)
{
    CHECK_EQ(mfd_birth(&agent, gone(), MFD_NETNS_OWN, AF_INET, SOCK_STREAM, 0), -EAGAIN);
}

static void in_our_own_cgroup_it_is_socket_s_error(void)
{
    CHECK_EQ(mfd_birth(&agent, getpid(), MFD_NETNS_OWN, AF_INET, SOCK_STREAM, IPPROTO_UDP),
             -EPROTONOSUPPORT);
    CHECK_EQ(mfd_birth(&agent, getpid(), MFD_NETNS_IPV4, AF_INET, SOCK_STREAM, 0), -ENETUNREACH);
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
