/* engine.c - small things that Python cannot do by itself
 *
 * Everything here runs in the supervisor or the command, never in an agent. */
#include "engine.h"

#include <assert.h>
#include <netinet/in.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <sys/signalfd.h>

#include "filter.h"
#include "routes.h"
#include "util.h"

static_assert(MFD_ENGINE_FILTER_MAX == MFD_FILTER_MAX, "one filter fits");
static_assert(sizeof(struct sock_filter) == sizeof(uint64_t), "one instruction is one word");
static_assert(MFD_UNIX == AF_UNIX && MFD_INET == AF_INET && MFD_INET6 == AF_INET6, "families");
static_assert(MFD_TCP == IPPROTO_TCP && MFD_UDP == IPPROTO_UDP, "protocols");

int mfd_engine_lookup(int table_fd, uint32_t protocol, const struct mfd_address *address,
                      uint32_t *ret_verdict, uint32_t *ret_rule, uint32_t *ret_argument)
{
    const struct mfd_table *table;
    struct mfd_match match;
    int error = mfd_routes_map(table_fd, &table);

    if (error < 0)
        return error;
    mfd_routes_find(table, protocol, address, &match);
    mfd_routes_unmap(table);
    *ret_verdict = match.verdict;
    *ret_rule = match.rule;
    *ret_argument = match.argument;
    return 0;
}

unsigned mfd_engine_filter(uint32_t setup_flags, uint64_t *ret_words)
{
    struct mfd_filter_features features = mfd_filter_features_of(setup_flags);
    struct sock_filter program[MFD_FILTER_MAX];
    unsigned n = mfd_filter_build(&features, program);

    memcpy(ret_words, program, n * sizeof(program[0]));
    return n;
}

int mfd_engine_signals_open(uint64_t signals)
{
    sigset_t set;
    int fd;

    sigemptyset(&set);
    for (int signo = 1; signo <= 64; signo++)
        if ((signals >> (signo - 1)) & 1)
            (void)sigaddset(&set, signo);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return -errno;
    fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return fd < 0 ? -errno : fd;
}

int mfd_engine_signals_next(int signal_fd, int *ret_signo, int *ret_code, int *ret_pid)
{
    struct signalfd_siginfo info;
    ssize_t n = read(signal_fd, &info, sizeof(info));

    if (n < 0)
        return errno == EAGAIN ? 0 : -errno;
    *ret_signo = (int)info.ssi_signo;
    *ret_code = info.ssi_code;
    *ret_pid = (int)info.ssi_pid;
    return 1;
}

int mfd_engine_netns_enter(int netns_fd)
{
    int error = netns_fd < 0 ? unshare(CLONE_NEWNET) : setns(netns_fd, CLONE_NEWNET);

    return error < 0 ? -errno : 0;
}
