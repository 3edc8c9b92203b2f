/* SPDX-License-Identifier: MIT */
/*
 * siblings: share memory without a name by sending its descriptor.
 *
 *     giver                                               taker
 *     memfd_create(): 5 ----- SCM_RIGHTS, a socket -----> recvmsg(): 4
 *          |                                                   |
 *          +----- mmap ----> [ the same memory ] <---- mmap ---+
 *
 *     ./siblings, or ./siblings give /tmp/meet in one terminal and
 *     ./siblings take /tmp/meet in another
 * unix(7), cmsg(3), memfd_create(2), and "File sealing" in fcntl(2).
 */
#define _GNU_SOURCE
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

enum { text_size = 128, seals = F_SEAL_SHRINK | F_SEAL_GROW };
enum { socket_type = SOCK_SEQPACKET | SOCK_CLOEXEC };
struct note {
    char from_giver[text_size], from_taker[text_size];
};
static const char usage[] =
    "usage: siblings [--tmpfile] [give PATH [TEXT] | take PATH]\n"
    "Share memory with a process by a socket; alone, it forks both of them.\n"
    "  give PATH  write TEXT to new memory, and wait at PATH for a taker\n"
    "  take PATH  take the memory from there, and answer in it\n"
    "  --tmpfile  an unlinked file instead, which no seal protects\n"
    "example: siblings give /tmp/meet & siblings take /tmp/meet";
static int tmpfile_wanted;
static struct sockaddr_un address = {.sun_family = AF_UNIX};
static struct stat our_socket;

static int check(long result, const char *object)
{
    if (result == -1) err(1, "%s", object);
    return result;
}

/* Space is reserved: a full disk is an error here, and not SIGBUS later. */
static int create_memory(void)
{
    char path[] = "/tmp/siblings.XXXXXX";
    const int fd = tmpfile_wanted
                       ? mkostemp(path, O_CLOEXEC)
                       : memfd_create("note", MFD_CLOEXEC | MFD_ALLOW_SEALING);
    check(fd, "new memory");
    if (tmpfile_wanted) check(unlink(path), path);
    if ((errno = posix_fallocate(fd, 0, sizeof(struct note)))) err(1, "space");
    if (!tmpfile_wanted) check(fcntl(fd, F_ADD_SEALS, seals), "new memory");
    return fd;
}

/* Whoever else holds the descriptor of a file may truncate it: who touches the
   lost page dies of SIGBUS. Seals rule that out, but only memory has them. */
static void check_memory(int fd)
{
    const int found = fcntl(fd, F_GET_SEALS);
    struct stat status;
    if (fstat(fd, &status) == -1 || !S_ISREG(status.st_mode) ||
        status.st_size != sizeof(struct note))
        errx(1, "descriptor %d: not memory of the agreed size", fd);
    if (!tmpfile_wanted && (found == -1 || (found & seals) != seals))
        errx(1, "descriptor %d: could shrink: refused without --tmpfile", fd);
}

static struct note *map_note(int fd)
{
    const int prot = PROT_READ | PROT_WRITE, flags = MAP_SHARED;
    struct note *note = mmap(NULL, sizeof *note, prot, flags, fd, 0);
    if (note == MAP_FAILED) err(1, "descriptor %d: mmap", fd);
    return note;
}

/* Descriptors travel beside the data, of which there must be a byte. There is
   room for two, to see who sends two: CMSG_SPACE may round up to that. */
static _Alignas(struct cmsghdr) char control[CMSG_SPACE(2 * sizeof(int))];
static struct msghdr message = {.msg_iov = &(struct iovec){(char[]){'!'}, 1},
                                .msg_iovlen = 1,
                                .msg_control = control};

static void send_descriptor(int peer, int fd)
{
    message.msg_controllen = CMSG_SPACE(sizeof fd);
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET, header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(header), &fd, sizeof fd);
    check(sendmsg(peer, &message, MSG_NOSIGNAL), "the other process");
}

static int receive(int peer, int wanted)
{
    const struct timeval patience = {.tv_sec = 3};
    message.msg_controllen = sizeof control;
    setsockopt(peer, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    if (check(recvmsg(peer, &message, MSG_CMSG_CLOEXEC), "no answer") == 0)
        errx(1, "the other process: hung up");
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    const int *fds = (int *)(void *)CMSG_DATA((struct cmsghdr *)control);
    const int bytes = header ? header->cmsg_len - CMSG_LEN(0) : 0;
    const int count = bytes / (int)sizeof *fds;
    if (count == wanted && !(message.msg_flags & MSG_CTRUNC)) return *fds;
    for (int i = 0; i < count; i++) close(fds[i]);
    errx(1, "the other process: sent %d descriptors, not %d", count, wanted);
}

static void give(int peer, const char *text)
{
    const int fd = create_memory();
    struct note *note = map_note(fd);
    strcpy(note->from_giver, text);
    printf("[giver %d] writes '%s', sends descriptor %d\n", getpid(), text, fd);
    send_descriptor(peer, fd);
    receive(peer, 0);
    const struct note copy = *note;
    printf("[giver %d] reads '%.128s'\n", getpid(), copy.from_taker);
}

/* The other may still write to the note: print a copy, and within bounds. */
static void take(int peer)
{
    const int fd = receive(peer, 1);
    check_memory(fd);
    struct note *note = map_note(fd);
    const struct note copy = *note;
    printf("[taker %d] reads '%.128s'\n", getpid(), copy.from_giver);
    strcpy(note->from_taker, "thank you");
    printf("[taker %d] writes 'thank you', by descriptor %d\n", getpid(), fd);
    check(send(peer, "!", 1, MSG_NOSIGNAL), "the other process");
}

/* Ours, not what another has put in its place. */
static void remove_socket(int number)
{
    struct stat now; /* Another may have put something in its place. */
    if (lstat(address.sun_path, &now) == 0 && now.st_ino == our_socket.st_ino)
        unlink(address.sun_path);
    if (number != 0) signal(number, SIG_DFL), raise(number);
}

static int meet(const char *path, int giving)
{
    const int ends[] = {SIGINT, SIGTERM, SIGHUP};
    const struct sockaddr *name = (struct sockaddr *)&address;
    const int fd = check(socket(AF_UNIX, socket_type, 0), "socket");
    sigset_t all, before;
    if (*path == '\0' || strlen(path) >= sizeof address.sun_path)
        errx(2, "%s: no name for a socket, too long or empty", path);
    strcpy(address.sun_path, path);
    if (!giving && connect(fd, name, sizeof address) == -1)
        err(1, "%s: start siblings give first", path);
    if (!giving) return fd;
    /* No signal comes between making the socket and knowing that it is ours. */
    sigfillset(&all);
    sigprocmask(SIG_BLOCK, &all, &before);
    check(bind(fd, name, sizeof address), path);
    check(lstat(path, &our_socket), path);
    for (int i = 0; i < 3; i++)
        if (signal(ends[i], SIG_IGN) != SIG_IGN) signal(ends[i], remove_socket);
    sigprocmask(SIG_SETMASK, &before, NULL);
    check(listen(fd, 1), path);
    printf("[giver %d] waits at %s\n", getpid(), path);
    const int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    remove_socket(0);
    return check(peer, path);
}

/* All keep both ends: no death is a hang-up, only the parent tells of it. */
static void fork_both(const char *text)
{
    int ends[2], status = 0, parent = getpid();
    check(socketpair(AF_UNIX, socket_type, 0, ends), "socketpair");
    for (int i = 0; i < 2; i++) {
        if (check(fork(), "fork") != 0) continue;
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) || getppid() != parent) _exit(1);
        if (i == 1) take(ends[1]), _exit(0);
        give(ends[0], text);
        return;
    }
    while (status == 0 && wait(&status) != -1) continue;
    if (WIFSIGNALED(status)) errx(1, "child: %s", strsignal(WTERMSIG(status)));
    if (status != 0) exit(1);
}

int main(int argc, char *argv[])
{
    int help = 0, option;
    const struct option options[] = {
        {"help", 0, &help, 1}, {"tmpfile", 0, &tmpfile_wanted, 1}, {0}};
    while ((option = getopt_long_only(argc, argv, "", options, NULL)) != -1)
        if (option == '?') return 2;
    argc = help ? 0 : argc - optind, argv += optind;
    const int giving = argc >= 2 && argc <= 3 && strcmp(argv[0], "give") == 0;
    const int taking = argc == 2 && strcmp(argv[0], "take") == 0;
    const char *text = argc == 3 ? argv[2] : "memories are for sharing";
    if (argc != 0 && !giving && !taking) errx(2, "%s: try --help", argv[0]);
    if (strlen(text) >= text_size) errx(2, "TEXT: %d bytes or more", text_size);
    if (fcntl(1, F_GETFD) || fcntl(2, F_GETFD)) err(1, "stdout or stderr");
    setvbuf(stdout, NULL, _IOLBF, 0);
    umask(0177), signal(SIGXFSZ, SIG_IGN);
    if (help) puts(usage);
    if (giving) give(meet(argv[1], 1), text);
    if (taking) take(meet(argv[1], 0));
    if (argc == 0 && !help) fork_both(text);
    if (fflush(stdout) == EOF || ferror(stdout)) err(1, "stdout");
}
