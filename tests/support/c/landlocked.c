/* landlocked.c - landlocked MODE HOST PORT ALLOWED...: connect under Landlock, which allows these ports alone
 *
 *   blocking      says what connect() said, and whether there is a connection after all, which is waited for
 *   nonblocking   where one may be on its way
 *   files         the same as blocking, under a rule about files
 *   other         the same, by a process that is free, after another has confined itself
 *   narrowed      the same, after a first ruleset that allows the ports, and a second that allows none
 *   bind          HOST:PORT is bound, which no rule allows
 *   errors        what landlock_restrict_self() says of nonsense
 *   crowd         40 processes at once, each confined before it connects; prints how many were refused
 *   victims       the same, each killed in the middle; prints nothing of them
 *   flood         300 processes at once, until one is told ENOMEM; then it connects
 *
 * "no landlock" where the kernel has none for TCP. */
#include <signal.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "say.h"

#define CREATE_RULESET 444 /* asm-generic/unistd.h; the same everywhere */
#define ADD_RULE 445
#define RESTRICT_SELF 446
#define RULE_NET_PORT 2 /* linux/landlock.h */
#define NET_BIND_TCP 1
#define NET_CONNECT_TCP 2
#define FS_MAKE_SOCK 512
#define UNKNOWN_FLAG (1U << 31)

#define N_CROWD 40
#define N_FLOOD 300

struct ruleset {
    uint64_t files;
    uint64_t net;
};

struct net_port {
    uint64_t allowed;
    uint64_t port;
};

static char *nothing[] = {NULL};

static int create(uint64_t files, uint64_t net, char **ports)
{
    struct ruleset handled = {.files = files, .net = net};
    int ruleset = (int)syscall(CREATE_RULESET, &handled, sizeof(handled), 0);

    for (; ruleset >= 0 && *ports != NULL; ports++) {
        struct net_port rule = {.allowed = NET_CONNECT_TCP, .port = strtoull(*ports, NULL, 10)};

        sure("landlock_add_rule", (int)syscall(ADD_RULE, ruleset, RULE_NET_PORT, &rule, 0));
    }
    return ruleset;
}

static int restrict_self(int ruleset)
{
    sure("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    return (int)syscall(RESTRICT_SELF, ruleset, 0);
}

static void confine(uint64_t files, uint64_t net, char **ports)
{
    int ruleset = sure("landlock_create_ruleset", create(files, net, ports));

    sure("landlock_restrict_self", restrict_self(ruleset));
    close(ruleset);
}

static void connect_there(const struct address *address, int flags)
{
    struct sockaddr_storage peer;
    socklen_t length = sizeof(peer);
    int fd = tcp_socket(address, flags);

    say(dial(fd, address), "connect");
    wait_for(fd, POLLOUT); /* a socket that never connected says POLLHUP at once */
    printf("connected: %s\n", getpeername(fd, (void *)&peer, &length) == 0 ? "yes" : "no");
}

static void bind_there(const struct address *address)
{
    socklen_t size = sizeof(int);
    int listens = -1;
    int fd = tcp_socket(address, 0);

    say(bind(fd, sockaddr_of(address), address->length), "bind");
    sure("SO_ACCEPTCONN", getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &listens, &size));
    printf("listens: %d\n", listens);
}

static void other(const struct address *address)
{
    pid_t pid = sure("fork", fork());

    if (pid == 0) {
        confine(0, NET_CONNECT_TCP, nothing);
        _exit(0);
    }
    sure("waitpid", waitpid(pid, NULL, 0));
    connect_there(address, 0);
}

static void errors(void)
{
    int ruleset = sure("landlock_create_ruleset", create(0, NET_CONNECT_TCP, nothing));

    say((int)syscall(RESTRICT_SELF, ruleset, 0), "with privileges to gain");
    sure("PR_SET_NO_NEW_PRIVS", prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0));
    say((int)syscall(RESTRICT_SELF, 99, 0), "no file");
    say((int)syscall(RESTRICT_SELF, -1, 0), "negative");
    say((int)syscall(RESTRICT_SELF, sure("open", open("/dev/null", O_RDWR)), 0), "no ruleset");
    say((int)syscall(RESTRICT_SELF, ruleset, UNKNOWN_FLAG), "unknown flag");
    for (int i = 0; i < 17; i++) /* landlock(7): at most 16 */
        say((int)syscall(RESTRICT_SELF, ruleset, 0), "layer");
}

static void be_refused(const struct address *address)
{
    confine(0, NET_CONNECT_TCP, nothing);
    _exit(dial(tcp_socket(address, 0), address) < 0 && errno == EACCES ? 0 : 1);
}

/* Children that all begin when the last is there. */
static void run_crowd(const struct address *address, int killed)
{
    pid_t pids[N_CROWD];
    int n_refused = 0;
    int gate[2];

    sure("pipe", pipe(gate));
    for (int i = 0; i < N_CROWD; i++) {
        pids[i] = sure("fork", fork());
        if (pids[i] == 0) {
            char byte;

            close(gate[1]);
            sure("read", (int)read(gate[0], &byte, 1));
            be_refused(address);
        }
    }
    close(gate[1]);
    for (int i = 0; i < N_CROWD; i++) {
        int status;

        if (killed)
            sure("kill", kill(pids[i], SIGKILL));
        sure("waitpid", waitpid(pids[i], &status, 0));
        n_refused += WIFEXITED(status) && WEXITSTATUS(status) == 0;
    }
    if (!killed)
        printf("as it should be: %d of %d\n", n_refused, N_CROWD);
}

static void flood(const struct address *address)
{
    pid_t pids[N_FLOOD];
    int status = 0;

    for (int i = 0; i < N_FLOOD; i++) {
        pids[i] = sure("fork", fork());
        if (pids[i] == 0) {
            int ruleset = sure("landlock_create_ruleset", create(FS_MAKE_SOCK, 0, nothing));

            while (restrict_self(ruleset) == 0)
                continue;
            _exit(errno == ENOMEM ? 0 : 1);
        }
    }
    sure("waitpid", waitpid(-1, &status, 0));
    printf("told ENOMEM: %d\n", WIFEXITED(status) && WEXITSTATUS(status) == 0);
    for (int i = 0; i < N_FLOOD; i++)
        (void)kill(pids[i], SIGKILL);
    while (waitpid(-1, &status, 0) > 0)
        continue;
    connect_there(address, 0);
}

int main(int argc, char **argv)
{
    struct address address = address_of(argv[2], argv[3]);
    const char *mode = argv[1];

    (void)argc;
    if (create(0, NET_CONNECT_TCP, nothing) < 0) {
        puts("no landlock");
        return 0;
    }
    if (strcmp(mode, "errors") == 0) {
        errors();
    } else if (strcmp(mode, "crowd") == 0) {
        run_crowd(&address, 0);
    } else if (strcmp(mode, "victims") == 0) {
        run_crowd(&address, 1);
    } else if (strcmp(mode, "flood") == 0) {
        flood(&address);
    } else if (strcmp(mode, "other") == 0) {
        other(&address);
    } else if (strcmp(mode, "files") == 0) {
        confine(FS_MAKE_SOCK, 0, nothing);
        connect_there(&address, 0);
    } else {
        confine(0, NET_BIND_TCP | NET_CONNECT_TCP, argv + 4);
        if (strcmp(mode, "narrowed") == 0)
            confine(0, NET_CONNECT_TCP, nothing);
        if (strcmp(mode, "bind") == 0)
            bind_there(&address);
        else
            connect_there(&address, strcmp(mode, "nonblocking") == 0 ? SOCK_NONBLOCK : 0);
    }
    return 0;
}
