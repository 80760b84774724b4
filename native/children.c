/* children.c - reap, signal and end the processes of the service
 *
 * Theory of operation: the agent is the parent of every program that it spawns and, as a child
 * subreaper, of every process that these leave behind. An end is looked at before it is reaped
 * (WNOWAIT): when the report about a spawned program finds the channel full, its zombie simply stays
 * until there is room. Nothing is queued, nothing is lost.
 *
 * Ending everything: SIGKILL to all direct children; when one dies, its children become ours and are
 * killed in their turn, until there are none. A direct child that we have not reaped cannot give its
 * pid to another, so nobody else is ever hit. Other signals to "all" go to the descendants as /proc
 * shows them at that moment.
 *
 * Job control: `meshfd exec` stands for its command, so when the command stops so does it, and when the
 * command goes on, or ends, it goes on, whoever was the cause. We do that, because we see these changes
 * in their order, and a SIGCONT takes back a SIGSTOP that was not acted on yet.
 * Source: waitid(2), prctl(2) PR_SET_CHILD_SUBREAPER, proc(5) /proc/PID/task/TID/children. */
#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "meshfd.h"

#define DESCENDANTS_MAX                                                                            \
    8192 /* of one courtesy signal; SIGKILL reaches all, generation by generation */

/* mfd_children_add - remember a spawned program
 * Return: 0; -ENOSPC past MFD_SPAWNED_MAX. */
int mfd_children_add(struct mfd_children *children, pid_t pid)
{
    for (unsigned i = 0; i < MFD_SPAWNED_MAX; i++) {
        if (children->spawned[i] != 0)
            continue;
        children->spawned[i] = pid;
        children->main = pid;
        children->none = false;
        children->ending = false;
        return 0;
    }
    return -ENOSPC;
}

/* mfd_children_have_room - can mfd_children_add() succeed? */
bool mfd_children_have_room(const struct mfd_children *children)
{
    for (unsigned i = 0; i < MFD_SPAWNED_MAX; i++)
        if (children->spawned[i] == 0)
            return true;
    return false;
}

static pid_t *find_spawned(struct mfd_children *children, pid_t pid)
{
    for (unsigned i = 0; i < MFD_SPAWNED_MAX; i++)
        if (children->spawned[i] == pid)
            return &children->spawned[i];
    return NULL;
}

/* --- signals ---------------------------------------------------------------------------------------- */

struct pids {
    pid_t list[DESCENDANTS_MAX];
    unsigned n;
};

static void read_children(const char *path, struct pids *ret)
{
    FILE *file = fopen(path, "re");
    int pid;

    if (file == NULL)
        return;
    while (ret->n < DESCENDANTS_MAX && fscanf(file, "%d", &pid) == 1)
        ret->list[ret->n++] = pid;
    (void)fclose(file);
}

static void children_of(pid_t pid, struct pids *ret)
{
    char path[64];
    struct dirent *entry;
    DIR *tasks;

    (void)snprintf(path, sizeof(path), "/proc/%d/task", pid);
    tasks = opendir(path);
    if (tasks == NULL)
        return;
    while ((entry = readdir(tasks)) != NULL) {
        char children_path[96];

        if (entry->d_name[0] == '.')
            continue;
        (void)snprintf(children_path, sizeof(children_path), "/proc/%d/task/%.20s/children", pid,
                       entry->d_name);
        read_children(children_path, ret);
    }
    (void)closedir(tasks);
}

static void signal_descendants(int signo, bool direct_only)
{
    static struct pids pids; /* too large for the stack; one thread */

    pids.n = 0;
    children_of(getpid(), &pids);
    for (unsigned i = 0; i < pids.n && !direct_only; i++)
        children_of(pids.list[i], &pids);
    for (unsigned i = 0; i < pids.n; i++)
        (void)kill(pids.list[i], signo); /* gone meanwhile, or setuid: nothing to be done */
}

/* mfd_children_stop - ask the main process to end, or what it has left behind when it has; a stopped
 * one cannot act on that before it is continued */
void mfd_children_stop(const struct mfd_children *children, int signo)
{
    if (children->main != 0) {
        (void)kill(children->main, signo);
        (void)kill(children->main, SIGCONT);
    } else if (!children->none) {
        signal_descendants(SIGTERM, false);
        signal_descendants(SIGCONT, false);
    }
}

/* mfd_children_end - kill everything, now and whatever is re-parented to us */
void mfd_children_end(struct mfd_children *children)
{
    if (children->none)
        return;
    children->ending = true;
    for (unsigned i = 0; i < MFD_SPAWNED_MAX; i++) /* also where /proc does not tell */
        if (children->spawned[i] != 0)
            (void)kill(children->spawned[i], SIGKILL);
    signal_descendants(SIGKILL, true);
}

/* mfd_children_signal - send a signal to the program spawned last, or to everything
 * Return: 0, also when there is nothing to receive it; -EINVAL; -EPERM. */
int mfd_children_signal(struct mfd_agent *agent, int signo, uint32_t scope)
{
    struct mfd_children *children = &agent->children;

    if (signo < 1 || signo > SIGRTMAX)
        return -EINVAL;
    switch (scope) {
    case MFD_SCOPE_MAIN:
        if (children->main != 0 && kill(children->main, signo) < 0 && errno != ESRCH)
            return -errno;
        return 0;
    case MFD_SCOPE_ALL:
        if (signo == SIGKILL)
            mfd_children_end(children);
        else
            signal_descendants(signo, false);
        return 0;
    default:
        return -EINVAL;
    }
}

/* --- reaping ---------------------------------------------------------------------------------------- */

static uint32_t wait_status(const siginfo_t *info)
{
    switch (info->si_code) {
    case CLD_EXITED:
        return (uint32_t)(info->si_status & 0xff) << 8;
    case CLD_DUMPED:
        return (uint32_t)info->si_status | 0x80; /* WCOREFLAG */
    case CLD_STOPPED:
        return (uint32_t)info->si_status << 8 | 0x7f;
    default:
        return (uint32_t)info->si_status;
    }
}

static int report_end(struct mfd_agent *agent, const siginfo_t *info)
{
    struct mfd_exited message = {.pid = (uint32_t)info->si_pid, .status = wait_status(info)};

    if (agent->leave != MFD_STAY)
        return 0;
    return mfd_control_report(agent, &message, MFD_MSG_EXITED, sizeof(message));
}

/* Two stops in a row have a SIGCONT between them that we were too slow to see. */
static void move_foreground(struct mfd_agent *agent, bool stop)
{
    if (agent->foreground_fd < 0 || agent->leave != MFD_STAY ||
        (!stop && !agent->foreground_stopped))
        return;
    agent->foreground_stopped = stop;
    (void)syscall(SYS_pidfd_send_signal, agent->foreground_fd, stop ? SIGSTOP : SIGCONT, NULL, 0);
}

/* A change is taken note of before it is reported. The other way round, a child that is continued and
 * stopped again meanwhile would have its second stop taken for the first. */
static void take_stop_or_continue(struct mfd_agent *agent, pid_t pid)
{
    siginfo_t info = {0};

    if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WCONTINUED | WNOHANG) < 0 ||
        info.si_pid != pid || find_spawned(&agent->children, pid) == NULL)
        return;
    if (info.si_code == CLD_STOPPED)
        mfd_control_stopped(agent, pid, wait_status(&info));
    if (pid == agent->children.main)
        move_foreground(agent, info.si_code == CLD_STOPPED);
}

static void forget(struct mfd_agent *agent, pid_t *spawned)
{
    const bool was_main = agent->children.main == *spawned;

    if (was_main)
        agent->children.main = 0;
    *spawned = 0;
    if (was_main && agent->leave == MFD_LOST)
        mfd_children_stop(&agent->children, SIGTERM);
    mfd_listening_rearm_all(agent);
}

/* mfd_children_reap - take note of every child that has changed */
void mfd_children_reap(struct mfd_agent *agent)
{
    struct mfd_children *children = &agent->children;

    for (;;) {
        siginfo_t info = {0};
        pid_t *spawned;

        if (waitid(P_ALL, 0, &info, WEXITED | WSTOPPED | WCONTINUED | WNOHANG | WNOWAIT) < 0) {
            children->none = true; /* ECHILD */
            children->ending = false;
            return;
        }
        if (info.si_pid == 0)
            break;
        if (info.si_code == CLD_STOPPED || info.si_code == CLD_CONTINUED) {
            take_stop_or_continue(agent, info.si_pid);
            continue;
        }
        spawned = find_spawned(children, info.si_pid);
        if (info.si_pid == children->main)
            move_foreground(agent, false); /* first: stopped, it would not read the report */
        if (spawned != NULL && report_end(agent, &info) < 0) {
            agent->control.full = true;
            return;
        }
        (void)waitid(P_PID, (id_t)info.si_pid, &info, WEXITED | WNOHANG);
        if (spawned != NULL)
            forget(agent, spawned);
    }
    children->none = false;
    if (children->ending)
        mfd_children_end(children);
}
