/* interrupt.c - signals for a call that would wait for ever
 *
 * A second thread looks until the call is known to have begun: connect() by its socket's state, which
 * only an attempt to connect leads to; another call by /proc/self/task/TID. A connect() that is
 * likely to be answered is left alone for PATIENCE_MS before anybody looks. From then on the thread
 * sends SIGUSR1 again and again until the call has returned, so that no signal can come too early.
 * The handler has SA_RESTART at first, if that was asked for; the second signal finds it without, so that
 * a call that was restarted ends too.
 * Source: signal(7), "Interruption of system calls"; proc(5). */
#include "differ.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PATIENCE_MS                                                                                \
    300 /* loopback answers within the call that asks; SYNs are repeated after 1 s */
#define LOOK_US 50
#define UNHEARD_LOOKS 200 /* 10 ms and more */
#define AGAIN_US 500
#define SYN_SENT 2 /* include/net/tcp_states.h */

bool restarting;
volatile int n_broken_pipes;

static struct {
    pthread_t helper;
    pthread_t caller;
    pid_t caller_tid;
    int connecting_fd; /* -1: it is a call that receives or accepts */
    bool patient;
    int n_looks; /* at a call that a supervisor is told of */
    sem_t ended; /* posted when the call has returned, as a patient helper waits for that */
    atomic_bool over;
} interruption;

static void install(int flags);

static void handle(int signo)
{
    if (signo == SIGPIPE)
        n_broken_pipes++;
    else
        install(0);
}

static void install(int flags)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = flags};

    sigaction(SIGUSR1, &action, NULL);
}

/* signals_begin - handlers of a sequence */
void signals_begin(void)
{
    struct sigaction action = {.sa_handler = handle, .sa_flags = SA_RESTART};

    restarting = false;
    sigaction(SIGPIPE, &action, NULL);
    install(0);
}

static const long waiting_calls[] = {
    SYS_recvfrom,        SYS_recvmsg, SYS_recvmmsg, SYS_accept4,
#ifdef SYS_accept
    SYS_accept,
#endif
#ifdef SYS_socketcall
    SYS_socketcall,
#endif
#ifdef SYS_recvmmsg_time64
    SYS_recvmmsg_time64,
#endif
};

/* Return: what /proc tells of the calling thread; "" when it cannot be read. */
static const char *told_of_caller(const char *name, char *text, size_t size)
{
    char path[64];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/self/task/%d/%s", (int)interruption.caller_tid, name);
    fd = must(path, open(path, O_RDONLY | O_CLOEXEC));
    n = read(fd, text, size - 1);
    close(fd);
    text[n < 0 ? 0 : n] = '\0';
    return text;
}

/* Where a seccomp supervisor hears of the call, a signal before that ends it (README, limits). Whether it has
 * heard does not show, but it does so at once; some calls wait there. */
static bool is_unheard(void)
{
    char text[64];

    return strstr(told_of_caller("wchan", text, sizeof(text)), "seccomp") != NULL &&
           interruption.n_looks++ < UNHEARD_LOOKS;
}

static bool is_in_call(void)
{
    char text[32];

    (void)told_of_caller("syscall", text, sizeof(text));
    for (size_t i = 0; text[0] != 'r' && i < sizeof(waiting_calls) / sizeof(waiting_calls[0]); i++)
        if (strtol(text, NULL, 10) == waiting_calls[i])
            return !is_unheard();
    return false;
}

static bool has_begun(void)
{
    if (interruption.connecting_fd >= 0)
        return tcp_view_of(interruption.connecting_fd).state == SYN_SENT;
    return is_in_call();
}

static void be_patient(void)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += PATIENCE_MS * 1000000L;
    until.tv_sec += until.tv_nsec / 1000000000L;
    until.tv_nsec %= 1000000000L;
    (void)sem_timedwait(&interruption.ended, &until);
}

static void *interrupt(void *unused)
{
    (void)unused;
    if (interruption.patient)
        be_patient();
    while (!interruption.over && !has_begun())
        usleep(LOOK_US);
    while (!interruption.over) {
        pthread_kill(interruption.caller, SIGUSR1);
        usleep(AGAIN_US);
    }
    return NULL;
}

/* interrupt_begin - from when it waits, interrupt the next call of this thread
 * @connecting_fd: it is a connect() of this one; -1: it is another of `waiting_calls`
 * @patient: it is likely to be answered; leave it alone at first */
void interrupt_begin(int connecting_fd, bool patient)
{
    install(restarting ? SA_RESTART : 0);
    interruption.caller = pthread_self();
    interruption.caller_tid = gettid();
    interruption.connecting_fd = connecting_fd;
    interruption.patient = patient;
    interruption.n_looks = 0;
    interruption.over = false;
    sem_init(&interruption.ended, 0, 0);
    must("pthread_create", -pthread_create(&interruption.helper, NULL, interrupt, NULL));
}

void interrupt_end(void)
{
    interruption.over = true;
    sem_post(&interruption.ended);
    pthread_join(interruption.helper, NULL);
}
