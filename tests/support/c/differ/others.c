/* others.c - operations that another does, while we wait for it
 *
 *   fork N     the next N operations are a child's
 *   vfork N    a child's that uses our memory; it has an fd table of its own. What it does may not wait
 *   exec N     a child's that has executed this program anew: what was close-on-exec is gone
 *   thread N   another thread's
 *
 * The program that is executed anew finds what the sequence had come to in a memfd that it inherits.
 * Source: vfork(2), execve(2). */
#include "differ.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define LEGACY_FD_MIN 700 /* out of the way of the sequence's own */

struct span {
    const struct sequence *sequence;
    int from;
    int to;
};

/* What a program that is executed anew has to know. */
struct legacy {
    int slots[N_SLOTS];
    int epolls[N_EPOLLS];
    struct place places[N_PLACES];
    int n_places;
    struct note notes[N_NOTES];
    bool told_back;
    bool directly;
    bool restarting;
    int from;
    int to;
    char lines[N_LINES][LINE_MAX_];
};

static void *perform_span(void *argument)
{
    const struct span *span = argument;

    perform(span->sequence, span->from, span->to);
    return NULL;
}

static void perform_in_thread(const struct span *span)
{
    pthread_t thread;

    if (is_vforked) { /* its thread would be ours, too */
        perform(span->sequence, span->from, span->to);
        return;
    }
    must("pthread_create", -pthread_create(&thread, NULL, perform_span, (void *)span));
    pthread_join(thread, NULL);
}

static void wait_for(pid_t child)
{
    int status;

    must("waitpid", waitpid(child, &status, 0));
    if (status != 0)
        tell("child ended: %#x\n", (unsigned)status);
    settle();
}

static void begin_child(void)
{
    is_child = true;
    alarm(SEQUENCE_PATIENCE_S);
}

static void perform_in_child(const struct span *span)
{
    pid_t child;

    fflush(stdout);
    child = must("fork", fork());
    if (child == 0) {
        is_vforked = false;
        begin_child();
        perform(span->sequence, span->from, span->to);
        fflush(stdout);
        _exit(0);
    }
    wait_for(child);
}

static void perform_in_vforked(const struct span *span)
{
    int kept_slots[N_SLOTS];
    int kept_epolls[N_EPOLLS];
    const bool was_child = is_child;
    const bool was_vforked = is_vforked;
    pid_t child;

    memcpy(kept_slots, slots, sizeof(slots));
    memcpy(kept_epolls, epolls, sizeof(epolls));
    child = must("vfork", vfork());
    if (child == 0) {
        is_vforked = true;
        begin_child();
        perform(span->sequence, span->from, span->to);
        _exit(0); /* what it told is in our buffer */
    }
    is_child = was_child;
    is_vforked = was_vforked;
    memcpy(slots, kept_slots, sizeof(slots));
    memcpy(epolls, kept_epolls, sizeof(epolls));
    wait_for(child);
}

static struct legacy *map_legacy(int fd)
{
    struct legacy *legacy = mmap(NULL, sizeof(*legacy), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

    must("mmap", legacy == MAP_FAILED ? -1 : 0);
    return legacy;
}

static int write_legacy(const struct span *span)
{
    int low = must("memfd_create", memfd_create("differ", 0));
    int fd = must("F_DUPFD", fcntl(low, F_DUPFD, LEGACY_FD_MIN));
    struct legacy *legacy;

    close(low);
    must("ftruncate", ftruncate(fd, sizeof(*legacy)));
    legacy = map_legacy(fd);
    memcpy(legacy->slots, slots, sizeof(slots));
    memcpy(legacy->epolls, epolls, sizeof(epolls));
    memcpy(legacy->places, places, sizeof(places));
    memcpy(legacy->notes, notes, sizeof(legacy->notes));
    legacy->n_places = n_places;
    legacy->told_back = told_back;
    legacy->directly = directly;
    legacy->restarting = restarting;
    legacy->from = span->from;
    legacy->to = span->to;
    for (int i = span->from; i < span->to; i++)
        snprintf(legacy->lines[i], sizeof(legacy->lines[i]), "%s", span->sequence->lines[i]);
    return fd;
}

static void perform_after_exec(const struct span *span)
{
    char number[16];
    pid_t child;

    fflush(stdout);
    child = must("fork", fork());
    if (child == 0) {
        snprintf(number, sizeof(number), "%d", write_legacy(span));
        execl("/proc/self/exe", "differ", RESUME, number, NULL);
        must("exec", -1);
    }
    wait_for(child);
}

/* resume - go on after an exec, and end */
_Noreturn void resume(const char *number)
{
    static struct sequence sequence;
    struct legacy *legacy = map_legacy(atoi(number));

    notes_reset();
    signals_begin();
    begin_child();
    memcpy(slots, legacy->slots, sizeof(slots));
    memcpy(epolls, legacy->epolls, sizeof(epolls));
    memcpy(places, legacy->places, sizeof(places));
    memcpy(notes, legacy->notes, sizeof(legacy->notes));
    n_places = legacy->n_places;
    told_back = legacy->told_back;
    directly = legacy->directly;
    restarting = legacy->restarting;
    sequence.n = legacy->to;
    for (int i = legacy->from; i < legacy->to; i++)
        sequence.lines[i] = legacy->lines[i];
    for (int i = 0; i < N_EPOLLS; i++)
        epolls[i] = -1; /* they are close-on-exec */
    perform(&sequence, legacy->from, legacy->to);
    fflush(stdout);
    _exit(0);
}

static const struct {
    const char *name;
    void (*perform)(const struct span *span);
} ways[] = {
    {"fork ", perform_in_child},
    {"vfork ", perform_in_vforked},
    {"exec ", perform_after_exec},
    {"thread ", perform_in_thread},
};

/* perform_by_another - if this line says so, have the next ones done
 * Return: how many lines are done; 0: it is an operation of ours. */
int perform_by_another(const struct sequence *sequence, int at, int to)
{
    const char *line = sequence->lines[at];

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        size_t length = strlen(ways[i].name);
        int n;

        if (strncmp(line, ways[i].name, length) != 0)
            continue;
        n = atoi(line + length);
        n = n > to - at - 1 ? to - at - 1 : n;
        tell("%d %s\n", at, line);
        ways[i].perform(&(struct span){.sequence = sequence, .from = at + 1, .to = at + 1 + n});
        return n + 1;
    }
    return 0;
}
