/* signals.c - signals: name every signal that comes, once for each time; SIGTERM ends it, status 3
 *
 * Signals are taken by sigwait(3), so none interrupts anything. */
#include <signal.h>

#include "say.h"

#define STATUS_TERMINATED 3

int main(void)
{
    static const int watched[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
    sigset_t set;
    int signo = 0;

    sigemptyset(&set);
    for (size_t i = 0; i < sizeof(watched) / sizeof(watched[0]); i++)
        sigaddset(&set, watched[i]);
    sure("sigprocmask", sigprocmask(SIG_BLOCK, &set, NULL));
    puts("ready");
    fflush(stdout);
    while (signo != SIGTERM) {
        sure("sigwait", -sigwait(&set, &signo));
        printf("SIG%s\n", sigabbrev_np(signo));
        fflush(stdout);
    }
    return STATUS_TERMINATED;
}
