/* describe.c - describe: everything that a program inherits, one fact a line
 *
 * What its parent's pid and its own are is left out; what they lead (session, group) is not. */
#include <sched.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>

#include "say.h"

#define N_FDS 256

extern char **environ;

static void say_status(void)
{
    static const char *const wanted[] = {"Umask",
                                         "Uid",
                                         "Gid",
                                         "Groups",
                                         "SigBlk",
                                         "SigIgn",
                                         "SigCgt",
                                         "CapEff",
                                         "CapPrm",
                                         "CapInh",
                                         "CapBnd",
                                         "CapAmb",
                                         "Cpus_allowed_list",
                                         "THP_enabled"};
    char line[4096];
    FILE *status = fopen("/proc/self/status", "re");

    while (status != NULL && fgets(line, sizeof(line), status) != NULL)
        for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
            if (strncmp(line, wanted[i], strlen(wanted[i])) == 0 && line[strlen(wanted[i])] == ':')
                fputs(line, stdout);
    if (status != NULL)
        fclose(status);
}

static void say_fds(void)
{
    for (int fd = 0; fd < N_FDS; fd++) {
        char path[32], target[512];
        int flags = fcntl(fd, F_GETFD);
        ssize_t n;

        if (flags < 0)
            continue;
        snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
        n = readlink(path, target, sizeof(target) - 1);
        target[n < 0 ? 0 : n] = '\0';
        printf("fd %d: %s, descriptor flags %d, status flags %#o\n", fd, target, flags,
               fcntl(fd, F_GETFL));
    }
}

static void say_limits(void)
{
    for (int which = 0; which < RLIMIT_NLIMITS; which++) {
        struct rlimit limit;

        if (getrlimit((__rlimit_resource_t)which, &limit) == 0)
            printf("limit %d: %llu %llu\n", which, (unsigned long long)limit.rlim_cur,
                   (unsigned long long)limit.rlim_max);
    }
}

static void say_terminal(void)
{
    int fd = open("/dev/tty", O_RDWR | O_CLOEXEC);

    printf("terminal: %s\n", fd < 0 ? name_of(errno) : "yes");
    if (fd < 0)
        return;
    printf("foreground group: %s\n", tcgetpgrp(fd) == getpgrp() ? "ours" : "another");
    close(fd);
}

int main(int argc, char **argv)
{
    char directory[4096];
    int death_signal = 0;

    for (int i = 1; i < argc; i++)
        printf("argument %d: %s\n", i, argv[i]);
    for (char **variable = environ; *variable != NULL; variable++)
        printf("environment: %s\n", *variable);
    printf("directory: %s\n", getcwd(directory, sizeof(directory)));
    say_status();
    say_fds();
    say_limits();
    say_terminal();
    printf("session: %d\n", (int)getsid(0));
    printf("group: %d\n", (int)getpgrp());
    printf("niceness: %d\n", getpriority(PRIO_PROCESS, 0));
    printf("policy: %d\n", sched_getscheduler(0));
    printf("dumpable: %d\n", prctl(PR_GET_DUMPABLE, 0, 0, 0, 0));
    printf("timer slack: %d\n", prctl(PR_GET_TIMERSLACK, 0, 0, 0, 0));
    printf("subreaper: %d\n", prctl(PR_GET_CHILD_SUBREAPER, &death_signal, 0, 0, 0) + death_signal);
    printf("parent death signal: %d\n",
           prctl(PR_GET_PDEATHSIG, &death_signal, 0, 0, 0) + death_signal);
    return 0;
}
