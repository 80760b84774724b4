/* main.c - read sequences, perform each in a process of its own */
#include "differ.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#define WRONG 99 /* the exit status when the sequence, or this program, is wrong */

int slots[N_SLOTS];
int epolls[N_EPOLLS];
bool is_child;
bool is_vforked;
bool directly; /* i386 */

static const struct operation *const tables[] = {socket_operations,  connect_operations,
                                                 option_operations,  stream_operations,
                                                 message_operations, event_operations};

/* tell - go on with the line */
void tell(const char *format, ...)
{
    va_list words;

    va_start(words, format);
    vprintf(format, words);
    va_end(words);
}

const char *error_name(int error)
{
    const char *name = error == 0 ? "0" : strerrorname_np(error);

    return name == NULL ? "?" : name;
}

/* tell_result - a call's value, or its errno */
void tell_result(int result)
{
    if (result < 0)
        tell(" %s", error_name(errno));
    else
        tell(" %d", result);
}

/* must - the value of a call that only fails when this program is wrong */
int must(const char *what, int value)
{
    if (value < 0) {
        fprintf(stderr, "%s: %s\n", what, strerror(errno));
        _exit(WRONG);
    }
    return value;
}

static void wrong(const char *what, const char *word)
{
    fprintf(stderr, "%s: %s\n", what, word);
    _exit(WRONG);
}

int slot_index(const char *word)
{
    int slot = word == NULL ? -1 : atoi(word);

    if (slot < 0 || slot >= N_SLOTS)
        wrong("not a slot", word == NULL ? "(nothing)" : word);
    return slot;
}

/* slot_fd - what is in the slot; NO_FD when it is empty */
int slot_fd(const char *word)
{
    int fd = slots[slot_index(word)];

    return fd < 0 ? NO_FD : fd;
}

/* slot_put - give the slot another fd, or none when fd < 0; what was there is closed */
void slot_put(const char *word, int fd)
{
    int slot = slot_index(word);

    if (slots[slot] >= 0)
        close(slots[slot]);
    slots[slot] = fd < 0 ? -1 : fd;
}

/* --- one operation ---------------------------------------------------------------------------------------- */

static const struct operation *operation_named(const char *name)
{
    for (size_t i = 0; i < sizeof(tables) / sizeof(tables[0]); i++)
        for (const struct operation *one = tables[i]; one->name != NULL; one++)
            if (strcmp(one->name, name) == 0)
                return one;
    return NULL;
}

static int split(char *line, char **words)
{
    char *rest = NULL;
    int n = 0;

    for (char *word = strtok_r(line, " ", &rest); word != NULL && n < N_WORDS;
         word = strtok_r(NULL, " ", &rest))
        words[n++] = word;
    return n;
}

static void perform_one(const struct sequence *sequence, int at)
{
    char copy[LINE_MAX_];
    char *words[N_WORDS + 1] = {NULL};
    const struct operation *operation;
    int n;

    snprintf(copy, sizeof(copy), "%s", sequence->lines[at]);
    n = split(copy, words);
    operation = n == 0 ? NULL : operation_named(words[0]);
    if (operation == NULL)
        wrong("not an operation", sequence->lines[at]);
    tell("%d %s:", at, sequence->lines[at]);
    fflush(stdout); /* if it never ends, this says which one */
    operation->run(words, n);
    if (n_broken_pipes > 0)
        tell(" SIGPIPE %d", n_broken_pipes);
    n_broken_pipes = 0;
    settle();
    tell("\n");
}

/* perform - these operations */
void perform(const struct sequence *sequence, int from, int to)
{
    for (int at = from; at < to;) {
        int n = perform_by_another(sequence, at, to);

        if (n == 0)
            perform_one(sequence, at++);
        at += n;
    }
}

/* --- sequences -------------------------------------------------------------------------------------------- */

static void refuse_all(int listening)
{
    int fd;

    fcntl(listening, F_SETFL, O_NONBLOCK);
    while ((fd = accept4(listening, NULL, NULL, SOCK_CLOEXEC)) >= 0)
        close(fd);
}

/* What can be seen of every slot when the operations are over. Connections are then reset, so that none
 * of them occupies a port in TIME_WAIT. */
static void finish(void)
{
    static const struct linger at_once = {.l_onoff = 1};

    for (int i = 0; i < N_SLOTS; i++) {
        int error = 0;
        socklen_t size = sizeof(error);

        if (slots[i] < 0)
            continue;
        tell("end of %d: %s flags %#o %d", i, tcp_state_name(tcp_view_of(slots[i]).state),
             (unsigned)fcntl(slots[i], F_GETFL), fcntl(slots[i], F_GETFD));
        say_events(slots[i]);
        say_name(slots[i], false);
        say_name(slots[i], true);
        if (getsockopt(slots[i], SOL_SOCKET, SO_ERROR, &error, &size) == 0)
            tell(" SO_ERROR %s", error_name(error));
        tell("\n");
        setsockopt(slots[i], SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
        if (is_listening(slots[i])) /* it may outlive us, with its queue */
            refuse_all(slots[i]);
    }
}

static void perform_all(const struct sequence *sequence)
{
    pid_t child;
    int status;

    notes_reset();
    fflush(stdout);
    child = must("fork", fork());
    if (child == 0) {
        alarm(SEQUENCE_PATIENCE_S);
        signals_begin();
        memset(slots, -1, sizeof(slots));
        memset(epolls, -1, sizeof(epolls));
        perform(sequence, 0, sequence->n);
        finish();
        fflush(stdout);
        _exit(0);
    }
    must("waitpid", waitpid(child, &status, 0));
    if (WIFEXITED(status) && WEXITSTATUS(status) == WRONG)
        exit(WRONG);
    if (status != 0)
        tell("ended: %#x\n", (unsigned)status);
    servers_drain();
}

static void perform_file(FILE *file)
{
    static struct sequence sequence;
    char line[LINE_MAX_];

    while (fgets(line, sizeof(line), file) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (strncmp(line, "seed ", 5) == 0) {
            tell("%s\n", line);
            sequence.n = 0;
        } else if (strcmp(line, "end") == 0) {
            perform_all(&sequence);
            while (sequence.n > 0)
                free(sequence.lines[--sequence.n]);
        } else if (line[0] != '\0' && sequence.n < N_LINES) {
            sequence.lines[sequence.n++] = strdup(line);
        }
    }
}

/* All of FILE is read before the first sequence: none of them has its fd. */
static FILE *read_ahead(const char *path)
{
    FILE *file = fopen(path, "re");
    char *text = NULL;
    size_t size = 0;

    must(path, file == NULL ? -1 : 0);
    if (getdelim(&text, &size, '\0', file) < 0)
        text = strdup("");
    fclose(file);
    return fmemopen(text, strlen(text) + 1, "r");
}

int main(int argc, char **argv)
{
    if (argc < 2)
        return WRONG;
    setvbuf(stdout, NULL, _IOFBF, BUFSIZ);
    if (argc > 2 && strcmp(argv[1], RESUME) == 0)
        resume(argv[2]);
    for (int i = 2; i < argc; i++)
        if (strcmp(argv[i], "told-back") == 0)
            told_back = true;
        else if (strcmp(argv[i], "direct") == 0)
            directly = true;
        else if (strcmp(argv[i], "handed") == 0)
            places_socket = STDIN_FILENO;
        else
            place_add(argv[i]);
    perform_file(read_ahead(argv[1]));
    return 0;
}
