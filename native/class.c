/* class.c - a socket keeps its program's class of net_cls and net_prio (cgroup version 1)
 *
 * Theory of operation: whoever receives a socket gives it its own class (net/core/sock.c, __receive_sock). ADDFD
 * receives for the program, pidfd_getfd(2) for us. So what we have taken up, and do not give to the program again
 * by ADDFD, has our class from then on; that is wrong where the program is in another cgroup of such a hierarchy.
 *
 * We cannot go there: moving to a cgroup gives its class to every socket that the process holds
 * (net/core/netclassid_cgroup.c, cgrp_attach), and we hold other programs' sockets, too; and each move waits for
 * the kernel, some 10 ms. So a child of ours goes there, with an empty table of fds, and stays: a bearer. It is
 * sent the socket (SCM_RIGHTS), which receives it, and lets go of it; then the socket is of its class.
 *
 *   where no such hierarchy is mounted    nothing is asked
 *   the program is in the same cgroup     /proc/PID/cgroup is read, for each socket that is taken up
 *   it is in another                      and the bearer is asked; the first time it is made, and we wait for it
 *
 * A bearer leaves KEPT_NS after it was last asked, and when a filter's last process has ended: until then its
 * cgroup cannot be removed. Where there can be none, the log says so, and the socket is of our class.
 *
 * State is static, as target.c's: whoever takes up a socket has no agent at hand.
 * Limits: BEARERS_MAX; the one that was asked the longest ago leaves first. A hierarchy is looked for once, at the
 * agent's start, and must be mounted whole; all of /proc/PID/cgroup has PLACE_ROOM. In a frozen cgroup a bearer has WAIT_MS. Between taking up and
 * the bearer's receipt a packet of that socket would go out in our class.
 * Source: cgroups(7), unix(7) SCM_RIGHTS, Linux' cgroup-v1/net_cls.rst and net_prio.rst. */
#include <fcntl.h>
#include <linux/sched.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>

#include "kernel.h"
#include "meshfd.h"

#define BEARERS_MAX 8
#define KEPT_NS MFD_NS_PER_S
#define OWN_NS MFD_NS_PER_S /* we may be moved, by somebody else: looked at again after that */
#define WAIT_MS 500
#define PLACE_ROOM 8192   /* all of /proc/PID/cgroup: some 12 lines */
#define PATH_ROOM 4096    /* PATH_MAX */
#define HIERARCHIES_MAX 2 /* net_cls and net_prio, apart */

/* lines of /proc/PID/cgroup without their numbers, such as "net_cls,net_prio:/shop\n" */
struct place {
    char lines[PLACE_ROOM];
};

struct bearer {
    uint64_t asked_ns; /* 0: a free slot */
    struct place place;
    int error; /* why there can be none; 0: it is there */
    int channel;
    int pidfd;
    pid_t pid;
};

static struct {
    bool mounted;
    struct place own;
    uint64_t own_ns; /* when it was looked at */
    struct bearer bearers[BEARERS_MAX];
    pid_t failed_pid; /* whose socket has lost its class; 0: it was said */
    int failed_error;
} state;

/* --- where a process is --------------------------------------------------------------------------------------- */

/* @line: of a place. Has its list of controllers this one? */
static bool has_controller(const char *line, const char *name)
{
    size_t end = strcspn(line, ":\n");
    size_t size;

    for (size_t at = 0; at < end; at += size + 1) {
        size = strcspn(line + at, ",:\n");
        if (size == strlen(name) && strncmp(line + at, name, size) == 0)
            return true;
    }
    return false;
}

/* Of the lines of /proc/PID/cgroup those that matter. */
static void pick_lines(const char *text, struct place *ret)
{
    size_t used = 0;
    size_t size;

    for (const char *line = text; *line != '\0'; line += size) {
        const char *rest;

        size = strcspn(line, "\n") + 1;
        if (line[size - 1] == '\0')
            break; /* cut off */
        rest = line + strcspn(line, ":\n") + 1;
        if (rest == line + size ||
            (!has_controller(rest, "net_cls") && !has_controller(rest, "net_prio")))
            continue;
        memcpy(ret->lines + used, rest, (size_t)(line + size - rest));
        used += (size_t)(line + size - rest);
    }
    ret->lines[used] = '\0';
}

static int find_place(pid_t pid, struct place *ret)
{
    static char text[PLACE_ROOM];
    char path[32];
    MFD_CLOSE int fd = -1;
    ssize_t n;

    (void)snprintf(path, sizeof(path), "/proc/%d/cgroup", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    n = read(fd, text, sizeof(text) - 1);
    if (n < 0)
        return -errno;
    text[n] = '\0';
    pick_lines(text, ret);
    return 0;
}

/* --- the way into a cgroup -------------------------------------------------------------------------------- */

/* The next place where the hierarchy is mounted that a line of a place is about. Return: NULL: there is none. */
static const char *next_mount(FILE *mounts, const char *line)
{
    char controller[32];
    struct mntent *one;

    (void)snprintf(controller, sizeof(controller), "%.*s", (int)strcspn(line, ",:"), line);
    while ((one = getmntent(mounts)) != NULL)
        if (strcmp(one->mnt_type, "cgroup") == 0 && hasmntopt(one, controller) != NULL)
            return one->mnt_dir;
    return NULL;
}

static bool is_mounted(const char *line)
{
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    bool found;

    if (mounts == NULL)
        return false;
    found = next_mount(mounts, line) != NULL;
    (void)endmntent(mounts);
    return found;
}

/* Return: an fd of the file that a process of ours writes to, to be where this line of a place says; -ENOENT; -EACCES. */
static int open_door(const char *line)
{
    static char path[2 * PATH_ROOM];
    const char *cgroup = line + strcspn(line, ":") + 1;
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    const char *mount;
    int error = -ENOENT;
    int fd = -1;

    if (mounts == NULL)
        return -ENOENT;
    while (fd < 0 && (mount = next_mount(mounts, line)) != NULL) {
        (void)snprintf(path, sizeof(path), "%s%.*s/cgroup.procs", mount, (int)strcspn(cgroup, "\n"),
                       cgroup);
        fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
            error = -errno;
    }
    (void)endmntent(mounts);
    return fd < 0 ? error : fd;
}

static void close_doors(int doors[HIERARCHIES_MAX])
{
    for (unsigned i = 0; i < HIERARCHIES_MAX; i++)
        mfd_close_at(&doors[i]);
}

static int open_doors(const struct place *place, int ret_doors[HIERARCHIES_MAX])
{
    unsigned n = 0;

    for (const char *line = place->lines; *line != '\0'; line = strchr(line, '\n') + 1) {
        int fd = n < HIERARCHIES_MAX ? open_door(line) : -ENOENT;

        if (fd < 0) {
            close_doors(ret_doors);
            return fd;
        }
        ret_doors[n++] = fd;
    }
    return 0;
}

/* --- a bearer ---------------------------------------------------------------------------------------------- */

static void say(int channel, int error)
{
    (void)send(channel, &error, sizeof(error), MSG_NOSIGNAL);
}

/* Receive a socket, and let go of it. Return: was there one? */
static bool bear_one(int channel)
{
    size_t n_fds = 1;
    uint8_t byte;
    int fd = -1;

    if (mfd_rights_receive(channel, &byte, sizeof(byte), &fd, &n_fds, 0) <= 0 || n_fds == 0)
        return false;
    (void)close(fd); /* not the last: the agent waits */
    say(channel, 0);
    return true;
}

/* In the child. It holds no socket when it goes. */
static _Noreturn void bear(int channel, const int doors[HIERARCHIES_MAX])
{
    int error = prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 ? errno : 0;
    int n = 0;

    (void)prctl(PR_SET_NAME, "meshfd-class");
    while (error == 0 && n < HIERARCHIES_MAX && doors[n] >= 0) {
        if (dup2(doors[n], n + 1) <
            0) /* standard files are ours, and taken in the agent: no door is there */
            error = errno;
        n++;
    }
    if (dup2(channel, 0) < 0 || close_range((unsigned)n + 1, ~0U, 0) < 0)
        _exit(1);
    for (int i = 1; i <= n; i++) {
        if (error == 0 && write(i, "0", 1) != 1) /* itself */
            error = errno;
        (void)close(i);
    }
    say(0, error);
    while (error == 0 && bear_one(0))
        continue;
    _exit(0);
}

/* Return: 0; -ETIMEDOUT; -EPIPE: it is gone; -errno of the bearer's. */
static int hear(const struct bearer *bearer)
{
    int error;
    ssize_t n = recv(bearer->channel, &error, sizeof(error), 0);

    if (n == sizeof(error))
        return -error;
    return n < 0 && errno == EAGAIN ? -ETIMEDOUT : -EPIPE;
}

/* Frozen, it does not end before it is thawed: then it is left behind. */
static void dismiss(struct bearer *bearer)
{
    struct pollfd ended = {.fd = bearer->pidfd, .events = POLLIN};

    mfd_close_at(&bearer->channel);
    if (bearer->pid == 0)
        return;
    (void)kill(bearer->pid, SIGKILL);
    (void)poll(&ended, 1, WAIT_MS);
    (void)waitpid(bearer->pid, NULL, (int)__WCLONE | WNOHANG);
    mfd_close_at(&bearer->pidfd);
    bearer->pid = 0;
}

static void release(struct bearer *bearer)
{
    if (bearer->asked_ns != 0)
        dismiss(bearer);
    bearer->asked_ns = 0;
}

static int start_bearer(struct bearer *bearer, const int doors[HIERARCHIES_MAX])
{
    const struct timeval patience = {.tv_usec = WAIT_MS * 1000};
    /* no exit signal: it is reaped here, and children.c never hears of it (__WCLONE) */
    struct clone_args args = {.flags = CLONE_PIDFD, .pidfd = (uintptr_t)&bearer->pidfd};
    int channel[2];
    long pid;
    int error;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, channel) < 0)
        return -errno;
    (void)setsockopt(channel[0], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    pid = syscall(SYS_clone3, &args, sizeof(args));
    if (pid == 0)
        bear(channel[1], doors);
    error = pid < 0 ? -errno : 0;
    (void)close(channel[1]);
    bearer->channel = channel[0];
    bearer->pid = pid < 0 ? 0 : (pid_t)pid;
    if (error == 0)
        error = hear(bearer);
    if (error < 0)
        dismiss(bearer);
    return error;
}

/* Make the slot this place's. */
static void occupy(struct bearer *bearer, const struct place *place)
{
    int doors[HIERARCHIES_MAX] = {-1, -1};

    release(bearer);
    *bearer =
        (struct bearer){.asked_ns = mfd_now_ns(), .place = *place, .channel = -1, .pidfd = -1};
    bearer->error = open_doors(place, doors);
    if (bearer->error == 0)
        bearer->error = start_bearer(bearer, doors);
    close_doors(doors);
}

static int ask(const struct bearer *bearer, int fd)
{
    const uint8_t byte = 0;
    int error = mfd_rights_send(bearer->channel, &byte, sizeof(byte), &fd, 1, 0);

    if (error < 0)
        return error == -ECONNRESET ? -EPIPE : error;
    return hear(bearer);
}

/* --- what others ask for ------------------------------------------------------------------------------------ */

static struct bearer *find(const struct place *place)
{
    for (unsigned i = 0; i < BEARERS_MAX; i++)
        if (state.bearers[i].asked_ns != 0 &&
            strcmp(state.bearers[i].place.lines, place->lines) == 0)
            return &state.bearers[i];
    return NULL;
}

/* A free slot, or the one that was asked the longest ago. */
static struct bearer *oldest(void)
{
    struct bearer *found = &state.bearers[0];

    for (unsigned i = 1; i < BEARERS_MAX; i++)
        if (state.bearers[i].asked_ns < found->asked_ns)
            found = &state.bearers[i];
    return found;
}

static int give_class(const struct place *place, int fd)
{
    struct bearer *bearer = find(place);
    bool is_new = bearer == NULL;

    if (is_new) {
        bearer = oldest();
        occupy(bearer, place);
    }
    if (bearer->channel < 0)
        return bearer->error; /* tried again when the slot has expired */
    bearer->asked_ns = mfd_now_ns();
    bearer->error = ask(bearer, fd);
    if (bearer->error == -EPIPE && !is_new) { /* somebody has killed it */
        occupy(bearer, place);
        if (bearer->channel >= 0)
            bearer->error = ask(bearer, fd);
    }
    if (bearer->error < 0)
        dismiss(bearer);
    return bearer->error;
}

static bool is_classed(int fd)
{
    int domain;

    return mfd_socket_option(fd, SOL_SOCKET, SO_DOMAIN, &domain) == 0 && domain != AF_UNIX;
}

/* mfd_class_open - is a hierarchy with net_cls or net_prio mounted here? One that is not may be there still, because
 * it is mounted elsewhere, or was. */
void mfd_class_open(void)
{
    static struct place place;

    state.mounted = false;
    if (find_place(getpid(), &place) < 0)
        return;
    for (const char *line = place.lines; *line != '\0'; line = strchr(line, '\n') + 1)
        state.mounted = state.mounted || is_mounted(line);
}

/* mfd_class_keep - give a file that we have just received, if it is a socket, its program's class
 * Costs one comparison where no such hierarchy is mounted. */
void mfd_class_keep(pid_t pid, int fd)
{
    static struct place place; /* too large for the stack; one thread */
    uint64_t now;
    int error;

    if (!state.mounted || !is_classed(fd))
        return;
    now = mfd_now_ns();
    if (state.own_ns + OWN_NS <= now && find_place(getpid(), &state.own) == 0)
        state.own_ns = now;
    if (find_place(pid, &place) < 0) /* it is gone */
        return;
    if (place.lines[0] == '\0' || strcmp(place.lines, state.own.lines) == 0)
        return;
    error = give_class(&place, fd);
    if (error < 0) {
        state.failed_pid = pid;
        state.failed_error = -error;
    }
}

/* mfd_class_next_ns - when a bearer is to leave; UINT64_MAX: there is none */
uint64_t mfd_class_next_ns(void)
{
    uint64_t next = UINT64_MAX;

    for (unsigned i = 0; i < BEARERS_MAX; i++)
        if (state.bearers[i].asked_ns != 0 && state.bearers[i].asked_ns + KEPT_NS < next)
            next = state.bearers[i].asked_ns + KEPT_NS;
    return state.failed_pid != 0 ? 0 : next;
}

/* mfd_class_expire - what was not asked for a while leaves; what went wrong is said */
void mfd_class_expire(struct mfd_agent *agent, uint64_t now_ns)
{
    for (unsigned i = 0; i < BEARERS_MAX; i++)
        if (state.bearers[i].asked_ns != 0 && state.bearers[i].asked_ns + KEPT_NS <= now_ns)
            release(&state.bearers[i]);
    if (state.failed_pid != 0)
        mfd_control_notice(agent, MFD_NOTICE_CLASS, state.failed_pid, state.failed_error, NULL,
                           MFD_ANY);
    state.failed_pid = 0;
}

/* mfd_class_forget - all leave: the programs that they were for have ended, perhaps */
void mfd_class_forget(void)
{
    for (unsigned i = 0; i < BEARERS_MAX; i++)
        release(&state.bearers[i]);
}
