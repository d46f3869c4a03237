//! Files of packages, by the space whose package holds them.

use uuid::Uuid;

use super::Store;
use super::list::Visible;

/// What the remembered files of one organization may have together, bytes: those that were not used for longest are
/// forgotten, and sent once more when they come again.
const MAX_ORG_BYTES: i64 = 2 << 30;

/// A file that a package holds.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "columns of the table")]
pub struct FileRow {
    pub sha1: Vec<u8>,
    pub size: i64,
    pub blob: Vec<u8>,
}

impl Store {
    /// Which of these files, by SHA-1 and size, packages of these spaces hold. A file that is asked for is young by that.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn files_known(&self, spaces: &Visible, sha1s: &[Vec<u8>], sizes: &[i64]) -> sqlx::Result<Vec<FileRow>> {
        let spaces = match spaces {
            Visible::All => None,
            Visible::Only(spaces) => Some(spaces.as_slice()),
        };
        sqlx::query_as!(
            FileRow,
            "with found as (
                 select f.space_guid, f.sha1, f.size, f.blob from space_file f
                 join (select distinct * from unnest($1::bytea[], $2::bigint[])) as asked (sha1, size)
                     on f.sha1 = asked.sha1 and f.size = asked.size
                 where $3::uuid[] is null or f.space_guid = any($3)
             ), used as (
                 update space_file f set used_at = now() from (
                     select o.space_guid, o.sha1, o.size from space_file o join found using (space_guid, sha1, size)
                     where o.used_at < now() - interval '1 hour' for update of o skip locked) old
                 where (f.space_guid, f.sha1, f.size) = (old.space_guid, old.sha1, old.size))
             select distinct sha1, size, blob from found",
            sha1s,
            sizes,
            spaces
        )
        .fetch_all(self.pool())
        .await
    }

    /// Remembers files of a package of this space, and forgets what its organization has not used for longest, if it is
    /// too much.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn files_remember(&self, space: Uuid, files: &[FileRow]) -> sqlx::Result<()> {
        let sha1s: Vec<Vec<u8>> = files.iter().map(|file| file.sha1.clone()).collect();
        let sizes: Vec<i64> = files.iter().map(|file| file.size).collect();
        let blobs: Vec<Vec<u8>> = files.iter().map(|file| file.blob.clone()).collect();
        // Sorted: two packages with the same files must not wait for each other in a ring.
        sqlx::query!(
            "insert into space_file (space_guid, sha1, size, blob)
             select distinct on (sha1, size) $1::uuid, sha1, size, blob
             from unnest($2::bytea[], $3::bigint[], $4::bytea[]) as file (sha1, size, blob) order by sha1, size
             on conflict (space_guid, sha1, size) do update set used_at = now(), blob = excluded.blob",
            space,
            &sha1s,
            &sizes,
            &blobs
        )
        .execute(self.pool())
        .await?;
        sqlx::query!(
            "with ranked as (
                 select f.space_guid, f.sha1, f.size,
                        (sum(f.size) over (order by f.used_at desc, f.sha1, f.space_guid))::bigint as until
                 from space_file f join space s on s.guid = f.space_guid
                 where s.org_guid = (select org_guid from space where guid = $1)
             ), old as (
                 delete from space_file f using ranked r
                 where (f.space_guid, f.sha1, f.size) = (r.space_guid, r.sha1, r.size) and r.until > $2
                 returning f.blob)
             update blob set suspect = true where digest in (select blob from old)",
            space,
            MAX_ORG_BYTES
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }

    /// Forgets files that no upload has spoken of for `unused_s` seconds, and those of spaces that are gone; at most `most`
    /// of each, the oldest first. Their blobs become suspect. A file that is being asked for right now is young by that.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn files_forget(&self, unused_s: f64, most: i64) -> sqlx::Result<()> {
        sqlx::query!(
            "with old as (
                 delete from space_file where (space_guid, sha1, size) in (
                     select space_guid, sha1, size from space_file where used_at < now() - make_interval(secs => $1)
                     order by used_at limit $2 for update skip locked)
                 returning blob)
             update blob set suspect = true where digest in (select blob from old)",
            unused_s,
            most
        )
        .execute(self.pool())
        .await?;
        sqlx::query!(
            "with old as (
                 delete from space_file where (space_guid, sha1, size) in (
                     select f.space_guid, f.sha1, f.size from space_file f
                     where not exists (select 1 from space s where s.guid = f.space_guid)
                     limit $1 for update of f skip locked)
                 returning blob)
             update blob set suspect = true where digest in (select blob from old)",
            most
        )
        .execute(self.pool())
        .await?;
        // Of the table that knew no spaces: nothing reads it.
        sqlx::query!(
            "with old as (
                 delete from resource_file where (sha1, size) in (
                     select sha1, size from resource_file limit $1 for update skip locked)
                 returning blob)
             update blob set suspect = true where digest in (select blob from old)",
            most
        )
        .execute(self.pool())
        .await?;
        Ok(())
    }
}
