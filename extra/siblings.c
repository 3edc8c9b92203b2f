/* SPDX-License-Identifier: MIT */
/*
 * siblings: share memory without a name by sending its descriptor.
 *
 *     giver                                               taker
 *     memfd_create(): 5 ----- SCM_RIGHTS, a socket -----> recvmsg(): 4
 *          |                                                   |
 *          +----- mmap ----> [ the same memory ] <---- mmap ---+
 *
 *     ./extra/siblings
 *     ./extra/siblings give /tmp/meet, and in another terminal
 *     ./extra/siblings take /tmp/meet
 *
 * unix(7), cmsg(3), memfd_create(2), and "File sealing" in fcntl(2).
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef F_SEAL_FUTURE_WRITE
#define F_SEAL_FUTURE_WRITE 0x0010 /* Linux 5.1 */
#endif

/* To experiment, change these lines, or use the options. */
static int prot = PROT_READ | PROT_WRITE;
static int flags = MAP_SHARED;
static int seals = F_SEAL_SHRINK | F_SEAL_GROW; /* no other size from then on */
static const char *text = "memories are for sharing";
static int as_file;   /* an unlinked file instead of a memfd */
static int read_only; /* for the taker; the giver still writes */

/* What both map. Each side writes one of the texts. */
enum { text_size = 128 };
struct note {
    char from_giver[text_size];
    char from_taker[text_size];
};

static enum { BOTH, GIVE, TAKE } role;
static const char *path;          /* of the socket where the two meet */
static struct stat our_socket;    /* what it was when we had made it */
static volatile sig_atomic_t own; /* it is there, and to be removed */

static void give(int peer);
static void take(int peer);
static int create_memory(void);
static void check_memory(int fd);
static void try_to_write(int fd);
static void send_descriptor(int peer, int fd);
static void send_word(int peer);
static int receive(int peer, int wanted);
static void fork_both(void);
static int wait_for_taker(void);
static int meet_giver(void);
static void print_text(const char *words, const char *from);
static void parse_options(int argc, char *argv[]);
static void check_streams(void);
static void catch_signals(void (*handler)(int));
static void flush_stdout(void);

int main(int argc, char *argv[])
{
    parse_options(argc, argv);
    check_streams();
    signal(SIGXFSZ, SIG_IGN); /* a limit is an error of the call */
    umask(0177);              /* the socket is nobody else's */

    switch (role) {
    case BOTH: fork_both(); break;
    case GIVE: give(wait_for_taker()); break;
    case TAKE: take(meet_giver()); break;
    }
    flush_stdout();
}

static void give(int peer)
{
    int fd = create_memory();
    struct note *note = mmap(NULL, sizeof *note, prot, flags, fd, 0);
    if (note == MAP_FAILED) err(1, "descriptor %d: mmap", fd);

    /* Mappings that exist may still be written to, new ones only read. */
    if (read_only) {
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_FUTURE_WRITE) == -1)
            err(1, "descriptor %d: a seal against writes", fd);
    }

    strcpy(note->from_giver, text);
    printf("[giver %d] writes '%s' at %p\n", getpid(), text, (void *)note);
    printf("[giver %d] sends descriptor %d\n", getpid(), fd);
    flush_stdout();
    send_descriptor(peer, fd);
    receive(peer, 0);

    if (read_only) {
        strcpy(note->from_giver, "I still write");
        printf("[giver %d] writes '%s'\n", getpid(), note->from_giver);
        flush_stdout();
        send_word(peer);
    } else {
        print_text("[giver %d] reads '%s'\n", note->from_taker);
    }
}

static void take(int peer)
{
    int fd = receive(peer, 1);
    check_memory(fd);
    if (read_only) {
        try_to_write(fd);
        prot = PROT_READ;
    }
    struct note *note = mmap(NULL, sizeof *note, prot, flags, fd, 0);
    if (note == MAP_FAILED) err(1, "descriptor %d: mmap", fd);

    printf("[taker %d] has it as descriptor %d at %p\n", getpid(), fd,
           (void *)note);
    print_text("[taker %d] reads '%s'\n", note->from_giver);
    if (read_only) {
        send_word(peer);
        receive(peer, 0);
        print_text("[taker %d] reads '%s'\n", note->from_giver);
    } else {
        strcpy(note->from_taker, "thank you");
        printf("[taker %d] writes 'thank you'\n", getpid());
        flush_stdout();
        send_word(peer);
    }
}

/* In a file system that knows no file without a name, it has one for a
   moment. */
static int open_unnamed_file(void)
{
    int fd = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd != -1) return fd;
    char name[] = "/tmp/siblings.XXXXXX";
    fd = mkostemp(name, O_CLOEXEC);
    if (fd == -1) return -1;
    if (unlink(name) == -1) err(1, "%s", name);
    return fd;
}

/* Its space is reserved: a full disk is an error here, and no SIGBUS later. */
static int create_memory(void)
{
    int fd = -1;
    if (as_file) fd = open_unnamed_file();
    if (!as_file) fd = memfd_create("note", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    if (fd == -1) err(1, "new memory");
    errno = posix_fallocate(fd, 0, sizeof(struct note));
    if (errno != 0) err(1, "space");
    if (as_file) return fd;
    if (fcntl(fd, F_ADD_SEALS, seals) == -1) err(1, "descriptor %d: seals", fd);
    return fd;
}

/* Who else has the file open may truncate it, and who then touches the lost
   page dies of SIGBUS. Seals rule that out, but only a memfd has them. */
static void check_memory(int fd)
{
    struct stat status;
    if (fstat(fd, &status) == -1) err(1, "descriptor %d", fd);
    const int is_note = status.st_size == sizeof(struct note);
    if (!S_ISREG(status.st_mode) || !is_note)
        errx(1, "descriptor %d: not memory of the agreed size", fd);
    if (as_file) return;
    const int found = fcntl(fd, F_GET_SEALS);
    if (found == -1 || (found & seals) != seals)
        errx(1, "descriptor %d: could shrink: refused without --tmpfile", fd);
}

/* What mmap() allows depends on the seals, and on how the descriptor was
   opened, but not on how the giver has mapped it. */
static void try_to_write(int fd)
{
    void *note = mmap(NULL, sizeof(struct note), prot, flags, fd, 0);
    if (note != MAP_FAILED)
        errx(1, "descriptor %d: may be written to: not sealed", fd);
    printf("[taker %d] may not map it to write: %s\n", getpid(),
           strerror(errno));
}

/* Descriptors travel beside the data, of which there must be a byte. */
static void send_descriptor(int peer, int fd)
{
    char word = '!';
    struct iovec data = {&word, 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fd)] = {0};
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    if (sendmsg(peer, &message, MSG_NOSIGNAL) == -1)
        err(1, "the other process");
}

static void send_word(int peer)
{
    if (send(peer, "!", 1, MSG_NOSIGNAL) == -1) err(1, "the other process");
}

/* Waits for a word, and for as many descriptors as are wanted with it, 0 or 1.
   There is room for two, so that one too many is seen: CMSG_SPACE(sizeof(int))
   may round up to that anyway. */
static int receive(int peer, int wanted)
{
    char word;
    struct iovec data = {&word, 1};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
    struct msghdr message = {.msg_iov = &data,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof control};
    const struct timeval patience = {.tv_sec = 3};
    const socklen_t length = sizeof patience;
    if (setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, length) == -1)
        err(1, "SO_RCVTIMEO");

    ssize_t got = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);
    while (got == -1 && errno == EINTR) /* stopped, and continued */
        got = recvmsg(peer, &message, MSG_CMSG_CLOEXEC);
    if (got == -1) err(1, "no answer");
    if (got == 0) errx(1, "the other process: hung up");

    int fds[2] = {-1, -1}, count = 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    const int rights = header && header->cmsg_level == SOL_SOCKET &&
                       header->cmsg_type == SCM_RIGHTS;
    if (rights) count = (header->cmsg_len - CMSG_LEN(0)) / sizeof *fds;
    if (rights) memcpy(fds, CMSG_DATA(header), count * sizeof *fds);
    const int cut = message.msg_flags & MSG_CTRUNC;
    if (count == wanted && !cut) return fds[0];
    for (int i = 0; i < count; i++) close(fds[i]);
    errx(1, "the other process: sent %d descriptors%s, not %d", count,
         cut ? " or more" : "", wanted);
}

/* Both children keep both ends of the socket, so that neither sees there that
   the other has died: only their parent does. */
static void start_child(void (*part)(int peer), int peer)
{
    const pid_t parent = getpid(), child = fork();
    if (child == -1) err(1, "fork");
    if (child > 0) return;

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) == -1) err(1, "prctl");
    if (getppid() != parent) exit(1);
    part(peer);
    flush_stdout();
    exit(0);
}

static void fork_both(void)
{
    int ends[2], status;
    signal(SIGCHLD, SIG_DFL); /* ignored, nobody could be waited for */
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) == -1)
        err(1, "socketpair");
    start_child(give, ends[0]);
    /* In two forks of one program mmap() would choose the same address. This
       keeps it from the taker: two strangers differ in what is free, too. */
    void *other = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (other == MAP_FAILED) err(1, "mmap");
    start_child(take, ends[1]);
    for (int i = 0; i < 2; i++) {
        const pid_t child = wait(&status);
        if (child == -1) err(1, "wait");
        if (WIFSIGNALED(status))
            errx(1, "child: %s", strsignal(WTERMSIG(status)));
        if (status != 0) exit(1); /* it has said why, and the other ends */
    }
}

/* Ours, and not what another has put in its place. */
static void remove_socket(void)
{
    struct stat now;
    if (!own) return;
    if (lstat(path, &now) == -1) return;
    if (now.st_dev == our_socket.st_dev && now.st_ino == our_socket.st_ino)
        unlink(path);
    own = 0;
}

static void end_by_signal(int number)
{
    remove_socket();
    raise(number);
}

static struct sockaddr_un address_of(const char *name)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (*name == '\0' || strlen(name) >= sizeof address.sun_path)
        errx(2, "%s: no name for a socket, too long or empty", name);
    strcpy(address.sun_path, name);
    return address;
}

/* A giver that was killed has left its socket. To ask by a socket of another
   type disturbs nobody: EPROTOTYPE tells that somebody is there. Two givers
   that ask at the same moment may both think that they come after it. */
static void remove_dead_socket(const struct sockaddr_un *address)
{
    struct stat status;
    if (lstat(path, &status) == -1) return;
    if (!S_ISSOCK(status.st_mode) || status.st_uid != geteuid()) return;
    int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd == -1) err(1, "socket");
    const struct sockaddr *name = (const struct sockaddr *)address;
    int nobody = connect(fd, name, sizeof *address) == -1;
    if (nobody && errno == ECONNREFUSED) unlink(path);
    close(fd);
}

/* No signal comes between making the socket and knowing that it is ours. */
static void bind_own(int fd, const struct sockaddr_un *address)
{
    sigset_t all, before;
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    if (bind(fd, (const struct sockaddr *)address, sizeof *address) == -1)
        err(1, "%s", path);
    if (lstat(path, &our_socket) == -1) {
        unlink(path);
        err(1, "%s", path);
    }
    own = 1;
    sigprocmask(SIG_SETMASK, &before, NULL);
}

static int wait_for_taker(void)
{
    const struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd == -1) err(1, "socket");
    atexit(remove_socket);
    catch_signals(end_by_signal);
    remove_dead_socket(&address);
    bind_own(fd, &address);
    if (listen(fd, 1) == -1) err(1, "%s", path);
    printf("[giver %d] waits for a taker at %s\n", getpid(), path);
    flush_stdout();
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    if (peer == -1) err(1, "%s", path);
    remove_socket();
    return peer;
}

static int meet_giver(void)
{
    const struct sockaddr_un address = address_of(path);
    int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
    if (fd == -1) err(1, "socket");
    const struct sockaddr *name = (const struct sockaddr *)&address;
    if (connect(fd, name, sizeof address) == -1)
        err(1, "%s: start siblings give first", path);
    return fd;
}

/* The other may still write to it, even a text without an end, or letters
   that would command a terminal: copy once, then print what is printable. */
static void print_text(const char *words, const char *from)
{
    char copy[text_size + 1] = "";
    memcpy(copy, from, text_size);
    for (char *letter = copy; *letter; letter++)
        if (!isprint((unsigned char)*letter)) *letter = '.';
    printf(words, getpid(), copy);
    flush_stdout();
}

/* The rest is alike in every program: options, and streams that are checked. */

static void usage(void)
{
    puts(
        "usage: siblings [--tmpfile | --readonly] [give PATH [TEXT] |\n"
        "                take PATH]\n"
        "Share memory with a process by a socket; alone, it forks both.\n"
        "  give PATH   write TEXT to new memory, and wait at PATH for a taker\n"
        "  take PATH   take the memory from there, and answer in it\n"
        "  --tmpfile   an unlinked file instead, which no seal protects\n"
        "  --readonly  seal it: the taker may only read, the giver writes\n"
        "example: siblings give /tmp/meet & siblings take /tmp/meet");
    flush_stdout();
    exit(0);
}

static void parse_options(int argc, char *argv[])
{
    const struct option options[] = {{"help", 0, NULL, 'h'},
                                     {"readonly", 0, &read_only, 1},
                                     {"tmpfile", 0, &as_file, 1},
                                     {NULL, 0, NULL, 0}};
    int option;
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        switch (option) {
        case 'h': usage(); break;
        case '?': exit(2);
        }
    if (as_file && read_only)
        errx(2, "--tmpfile --readonly: a file has no seals");

    argc -= optind;
    argv += optind;
    if (argc > 0 && strcmp(argv[0], "give") == 0)
        role = GIVE;
    else if (argc > 0 && strcmp(argv[0], "take") == 0)
        role = TAKE;
    else if (argc > 0)
        errx(2, "%s: not give or take; try --help", argv[0]);
    const int most = role == GIVE ? 3 : 2;
    if (argc == 1 || argc > most)
        errx(2, "want give PATH [TEXT], or take PATH; try --help");
    path = argv[1];
    if (argc == 3) text = argv[2];
    if (strlen(text) >= text_size) errx(2, "TEXT: %d bytes or more", text_size);
}

/* With stdout closed, open() would return 1, and printf() fill the file.
   A closed stdin is an empty one. */
static void check_streams(void)
{
    if (fcntl(STDOUT_FILENO, F_GETFD) == -1) err(1, "stdout");
    if (fcntl(STDERR_FILENO, F_GETFD) == -1) err(1, "stderr");
    if (fcntl(STDIN_FILENO, F_GETFD) != -1) return;
    if (open("/dev/null", O_RDONLY) == -1) err(1, "/dev/null");
}

/* The end by a signal is cleaned up after. What was ignored at the start, as
   SIGHUP is by nohup(1), stays ignored. */
static void catch_signals(void (*handler)(int))
{
    const int signals[] = {SIGHUP, SIGINT, SIGPIPE, SIGQUIT, SIGTERM};
    const struct sigaction action = {.sa_handler = handler,
                                     .sa_flags = SA_RESETHAND};
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) {
        struct sigaction before;
        sigaction(signals[i], NULL, &before);
        if (before.sa_handler != SIG_IGN) sigaction(signals[i], &action, NULL);
    }
}

static void flush_stdout(void)
{
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
