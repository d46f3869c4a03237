# Forks until it may not, ends them all and begins anew. Notes how many processes it made, and how often it was refused.
use strict;
my ($made, $refused) = (0, 0);
while (1) {
    my @children;
    while (defined(my $child = fork())) {
        if (!$child) {
            sleep 1000;
            exit;
        }
        push @children, $child;
        $made++;
    }
    $refused++;
    open(my $count, ">", "/dev/shm/new") or die;
    print $count "$made $refused";
    close $count;
    rename "/dev/shm/new", "/dev/shm/count";
    kill 9, @children;
    waitpid($_, 0) for @children;
}
